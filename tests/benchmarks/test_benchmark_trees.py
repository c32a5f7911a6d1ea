"""Two checkouts: each process runs its own tree's code, by its own tree's Python, or says why it cannot."""

import json
import shutil
import sys

import pytest
from stub_checkout import stub

from benchmarks import trees
from benchmarks.cases import Case
from benchmarks.machine import commit
from benchmarks.turns import ROOT, PeerError

CASE = Case("resnet8", 2)


def old(root, cache, python=sys.executable):
    return trees.Tree("old", root, python, cache)


def test_a_tree_runs_its_own_code_whatever_else_is_importable(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as an installed minires would be
    root = stub(tmp_path / "tree", seconds=0.25)
    with old(root, tmp_path / "cache").peer("train", CASE, 3) as peer:
        assert peer.start() == {"parameters": 7, "target": "stub"}
        assert peer.ask(steps=2) == [0.25, 0.25]
    (task, environment), *_ = (json.loads(line) for line in (root / "log").read_text().splitlines())
    assert task == {"job": "train", "peer": "minires", "model": "resnet8", "batch": 2, "threads": 3}
    assert environment == {"MINIRES_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_NUM_THREADS": "3"}


@pytest.mark.parametrize("package", ["minires", "benchmarks"])
def test_code_of_another_checkout_is_refused(tmp_path, monkeypatch, package):
    root, other = stub(tmp_path / "tree"), stub(tmp_path / "other")
    monkeypatch.setenv("PYTHONPATH", str(other))
    shutil.rmtree(root / package)
    tree = old(root, tmp_path / "cache")
    sentence = (
        rf"^old stopped with exit code 1: {package} was imported from .*other.{package}, not from .*tree.{package}$"
    )
    with tree.peer("train", CASE, 1) as peer, pytest.raises(PeerError, match=sentence):
        peer.start()
    with pytest.raises(PeerError, match=sentence):
        _ = tree.facts


def test_kernels_of_another_checkout_are_refused(tmp_path):
    """As a finder of an editable install could bring them in."""
    root, other = stub(tmp_path / "tree"), stub(tmp_path / "other")
    (root / "minires" / "__init__.py").write_text(f"__path__.append({str(other)!r})")
    with pytest.raises(
        PeerError, match=r"minires\.kernels was imported from .*other.kernels, not from .*tree.kernels$"
    ):
        _ = old(root, tmp_path / "cache").facts


def test_facts_name_commit_and_versions(tmp_path):
    facts = old(stub(tmp_path / "tree"), tmp_path / "cache").facts
    assert facts.startswith("no commit, Python 3.")
    assert ", numpy " in facts
    assert ", numba " in facts


def test_a_folder_inside_a_checkout_has_no_commit():
    assert commit(ROOT / "benchmarks") == ""


def test_its_own_python_is_taken_where_it_has_one(tmp_path):
    root = stub(tmp_path / "tree")
    with trees.pair(root) as (new, old):
        assert (new.python, old.python) == (sys.executable, sys.executable)
        assert (new.root, old.root) == (ROOT, root)
        assert new.cache != old.cache
        folder = old.cache.parent
        assert folder.is_dir()
    assert not folder.exists()
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ntouch "{tmp_path}/used"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with trees.pair(root) as (new, old):
        assert new.python == sys.executable
        assert "numba" in old.facts
    assert (tmp_path / "used").exists()


def test_what_is_no_other_checkout_is_refused(tmp_path):
    root = stub(tmp_path / "tree")
    assert trees.refusal(root) is None
    assert "this very checkout" in trees.refusal(ROOT)
    link = tmp_path / "link"
    link.symlink_to(ROOT)
    assert "this very checkout" in trees.refusal(link)
    assert trees.refusal(tmp_path / "nowhere").endswith(
        "nowhere is not a checkout of minires with benchmarks: it has no setup.cfg"
    )
    shutil.rmtree(root / "benchmarks")
    assert trees.refusal(root).endswith("it has no benchmarks/worker.py")
