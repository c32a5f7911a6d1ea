"""``python -m benchmarks --against TREE``: turns, results, tables, and what it says about mistakes."""

import json
import shutil
import subprocess
import sys

import pytest
from stub_checkout import stub

from benchmarks import __main__ as command
from benchmarks import report, trees
from benchmarks.cases import AGAINST
from benchmarks.turns import ROOT

QUIET = ["--cases", "resnet8:4", "--threads", "1"]


@pytest.fixture
def new(tmp_path, monkeypatch):
    """A stub in the place of this checkout: 10 ms a step, 10 MB."""
    root = stub(tmp_path / "new")
    monkeypatch.setattr(trees, "ROOT", root)
    return root


def requests(root, job):
    """[(when, steps)] that a stub was asked for."""
    lines = [json.loads(line) for line in (root / "log").read_text().splitlines()]
    return [(line[0], line[2]) for line in lines if len(line) == 3 and line[1] == job]


def order(new, old, job):
    """Who was asked for how many steps, in order."""
    both = [(*one, "new") for one in requests(new, job)] + [(*one, "old") for one in requests(old, job)]
    return [(name, steps) for _, steps, name in sorted(both)]


def test_turns_flip_and_the_first_step_is_not_counted(new, tmp_path, capsys):
    old, path = stub(tmp_path / "old", seconds=0.02), tmp_path / "run.json"
    arguments = ["train", "--against", str(old), *QUIET, "--rounds", "4", "--steps", "2", "--json", str(path)]
    assert command.main(arguments) == 0
    warm = [("new", 3), ("old", 3)]
    pair = [("new", 3), ("old", 3)]
    assert order(new, old, "train") == warm + pair + pair[::-1] + pair + pair[::-1]
    record = json.loads(path.read_text())["parts"]["against train"]
    assert record["rounds"] == 4
    assert record["environment"]["old"].startswith("no commit, Python")
    (case,) = record["result"]["cases"]
    assert case["seconds"] == {"new": [[0.01] * 2] * 4, "old": [[0.02] * 2] * 4}
    assert "| resnet8, batch 4, 1 thread | 10.0 | 20.0 | 0.500 | – |" in capsys.readouterr().out


def test_memory_of_fresh_processes_in_turn(new, tmp_path, capsys):
    old = stub(tmp_path / "old", megabytes=40)
    assert command.main(["memory", "--against", str(old), *QUIET]) == 0
    pair = [("new", 10), ("old", 10)]
    assert order(new, old, "memory") == [("new", 1), ("old", 1), *pair, *pair[::-1], *pair]
    assert "| resnet8, batch 4, 1 thread | 10 (10–10) | 40 (40–40) | 0.250 | 3 |" in capsys.readouterr().out


def test_a_run_is_kept_and_printed_again(new, tmp_path, capsys):
    old, path = stub(tmp_path / "old", seconds=0.0125), tmp_path / "run.json"
    startup = {"environment": {"CPU": "x"}, "result": {"rows": {"import minires": [0.5]}}}
    path.write_text(json.dumps({"parts": {"startup": startup}}))
    assert command.main(["--against", str(old), *QUIET, "--rounds", "10", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| resnet8, batch 4, 1 thread | 10.0 | 12.5 | 0.800 | 0.800–0.800 |") == 2
    assert printed.count("- resnet8, batch 4, 1 thread: new takes 20.0 % less time than old") == 2
    assert list(json.loads(path.read_text())["parts"]) == [
        "startup",
        *(f"against {job}" for job in ("train", "inference", "memory")),
    ]
    assert str(tmp_path) not in path.read_text()  # a run is committed: it names no folder
    assert command.main(["--from", str(path)]) == 0
    again = capsys.readouterr().out
    assert again.endswith(printed)
    assert "### Beginning" in again
    assert command.main(["against memory", "--from", str(path)]) == 0
    alone = capsys.readouterr().out
    assert "### Memory of a training step, new against old" in alone
    assert "### Training step" not in alone


@pytest.mark.parametrize(
    ("differs", "sentence"),
    [
        ({"dies": True}, "old stopped with exit code 1: out of luck"),
        ({"parameters": 8}, "old has 8 parameters and new 7: not the same network"),
    ],
)
def test_both_have_to_run(new, tmp_path, capsys, differs, sentence):
    old = stub(tmp_path / "old", **differs)
    assert command.main(["train", "--against", str(old), *QUIET, "--rounds", "1"]) == 1
    assert f"- resnet8, batch 4, 1 thread: {sentence}" in capsys.readouterr().out


def test_a_memory_process_that_dies_is_said_so(new, tmp_path, capsys):
    old = stub(tmp_path / "old", dies=True)
    assert command.main(["memory", "--against", str(old), *QUIET]) == 1
    assert "- resnet8, batch 4, 1 thread: old stopped with exit code 1: out of luck" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--against", "nowhere"], "nowhere is not a checkout of minires with benchmarks: it has no setup.cfg"),
        (["--against", str(ROOT)], "is this very checkout: name another one"),
        (
            ["startup", "train", "--against", "x"],
            "--against does not compare startup: choose of train, inference, memory",
        ),
        (["--against", "x", "--peers", "JAX"], "leave --peers out"),
        (["--against", "x", "--from", "run.json"], "--from runs nothing: leave --against out"),
        (["against train"], "no part against train: choose of train, "),
    ],
)
def test_mistakes_end_with_a_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_tree_that_cannot_be_imported_ends_with_a_sentence(new, tmp_path, capsys):
    old = stub(tmp_path / "old")
    (old / "minires" / "__init__.py").write_text("import a_library_not_installed")
    with pytest.raises(SystemExit) as ended:
        command.main(["--against", str(old), *QUIET])
    assert ended.value.code == 2
    assert "old stopped with exit code 1: ModuleNotFoundError" in capsys.readouterr().err


def test_turns_by_default():
    def rounds(part, *arguments):
        return command.rounds(part, command.parser().parse_args(arguments))

    assert [rounds(part) for part in ("train", "against train", "against inference", "against memory")] == [
        5,
        20,
        20,
        3,
    ]
    assert rounds("against train", "--quick") == 2
    assert rounds("against memory", "--rounds", "9", "--quick") == 9


def test_default_cases():
    assert [str(case) for case in AGAINST] == [
        "resnet20, batch 128",
        "resnet20, batch 32",
        "resnet56, batch 128",
        "preresnet110, batch 128",
        "resnet18, batch 8",
    ]


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ([[0.009]] * 10, "new takes 10.0 % less time than old"),
        ([[0.0105]] * 10, "new takes 5.0 % more time than old"),
        ([[0.009], [0.011]] * 5, "no difference shown: the interval contains 1"),
        ([[0.009]] * 9, "too few turns for an interval (9; it takes 10)"),
    ],
)
def test_a_gain_is_claimed_only_where_the_interval_leaves_out_1(new, verdict):
    case = {"model": "resnet8", "batch": 4, "threads": 2, "seconds": {"new": new, "old": [[0.01]] * len(new)}}
    gone = {"model": "resnet20", "batch": 4, "threads": 2, "failed": "old stopped"}
    lines = report.against({"job": "inference", "cases": [case, gone]}).splitlines()
    assert lines[0] == "| inference, ms (medians) | new | old | new / old | 95 % interval |"
    assert lines[-2:] == [f"- resnet8, batch 4, 2 threads: {verdict}", "- resnet20, batch 4, 2 threads: old stopped"]


@pytest.mark.slow
def test_this_tree_against_a_copy_of_it(tmp_path):
    """Real steps, and each process on its own tree: the copy says so itself, this tree by not being the copy."""
    copy, path = tmp_path / "copy", tmp_path / "run.json"
    for folder in ("minires", "kernels", "benchmarks"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", copy)
    with (copy / "minires" / "__init__.py").open("a") as file:
        file.write('\nimport sys\nwith open(_checkout / "used", "a") as file:\n    print(sys.argv[1:], file=file)\n')
    with (copy / "kernels" / "__init__.py").open("a") as file:
        file.write('\nfrom pathlib import Path\n(Path(__file__).parent / "used").touch()\n')
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "train", "memory", "--against", str(copy), "--cases", "resnet8:2",
         "--threads", "1", "--rounds", "2", "--steps", "1", "--json", str(path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = json.loads(path.read_text())["parts"]
    (case,), (memory,) = (parts[f"against {job}"]["result"]["cases"] for job in ("train", "memory"))
    assert case["parameters"] == 75290
    for name in ("new", "old"):
        assert [len(turn) for turn in case["seconds"][name]] == [1, 1]
        assert all(one["before"] < one["peak"] for one in memory["processes"][name])
    tasks = [line for line in (copy / "used").read_text().splitlines() if '"job"' in line]
    assert len(tasks) == 1 + 1 + 2  # times, compiling for memory, two processes of memory: those of old, none of new
    assert (copy / "kernels" / "used").exists()
