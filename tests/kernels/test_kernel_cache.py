"""A damaged file in the cache is never run, and costs no more than compiling its kernel again."""

import errno
import os
import pickle
import random
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from minires.kernels.runtime import kernel_cache, kernel_files
from minires.kernels.runtime.cache_folder import Folders

ROOT = Path(__file__).parents[2]


def python(code, *args, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True)


def zeroed(data):
    return bytes(len(data))


def flipped(data, at=0.5):
    place = int(at * (len(data) - 1))
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


DAMAGES = {
    "emptied": lambda data: b"",
    "first line alone": lambda data: kernel_files.FIRST_LINE,
    "truncated": lambda data: data[: len(data) // 2],
    "last byte gone": lambda data: data[:-1],
    "zeroed": zeroed,
    "longer": lambda data: data + b"\0",
    "garbage": lambda data: random.Random(0).randbytes(len(data)),
    "a pickle": lambda data: pickle.dumps([1, 2]),
    "flip in the first line": lambda data: flipped(data, 0),
    "flip in the sum": lambda data: data[:20] + flipped(data[20:40]) + data[40:],
    "flip": flipped,
    "flip at the end": lambda data: flipped(data, 1),
}


@pytest.fixture
def stored(tmp_path):
    """A folder with three files: {path: content}."""
    contents = {tmp_path / f"module.f{i}-1.0123{kernel_files.SUFFIX}": bytes([i]) * (1000 + i) for i in range(3)}
    for path, content in contents.items():
        kernel_files.write(path, content)
    return contents


class TestFiles:
    def test_what_is_written_is_read(self, stored, tmp_path):
        assert {path: kernel_files.read(path) for path in stored} == stored
        assert kernel_files.names(tmp_path) == {path.name for path in stored}
        assert kernel_files.read(tmp_path / "another") is None
        assert kernel_files.names(tmp_path / "another") == set()
        assert len(list(tmp_path.iterdir())) == 3

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damage_is_noticed(self, stored, damage):
        path = next(iter(stored))
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        with pytest.raises(kernel_files.RejectedFile, match="damaged"):
            kernel_files.read(path)

    def test_another_kernels_file_is_noticed(self, stored, tmp_path):
        one, other, _ = stored
        one.rename(other)
        with pytest.raises(kernel_files.RejectedFile, match="damaged"):
            kernel_files.read(other)

    def test_a_file_from_the_folder_of_another_version_is_noticed(self, stored, tmp_path):
        path = next(iter(stored))
        (tmp_path / "other").mkdir()
        path.rename(tmp_path / "other" / path.name)
        with pytest.raises(kernel_files.RejectedFile, match="damaged"):
            kernel_files.read(tmp_path / "other" / path.name)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
    @pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket"])
    def test_what_is_no_file_is_not_read(self, stored, tmp_path, kind, monkeypatch):
        path, other, _ = stored
        path.unlink()
        if kind == "link":
            path.symlink_to(other)
        elif kind == "pipe":
            os.mkfifo(path)  # nobody ever writes into it
        elif kind == "folder":
            path.mkdir()
        else:
            import socket

            monkeypatch.chdir(tmp_path)
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
        began = time.monotonic()
        with pytest.raises(kernel_files.RejectedFile, match=r"opened|regular"):
            kernel_files.read(path)
        assert time.monotonic() - began < 1

    def test_a_huge_file_is_not_read(self, stored):
        path = next(iter(stored))
        os.truncate(path, 1 << 40)  # a hole, which takes no space
        with pytest.raises(kernel_files.RejectedFile, match="has 1,099,511,627,776 bytes"):
            kernel_files.read(path)

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no mode")
    @pytest.mark.parametrize("mode", [0o666, 0o646])
    def test_a_file_that_others_can_write_to_is_not_read(self, stored, mode):
        path = next(iter(stored))
        path.chmod(mode)
        with pytest.raises(kernel_files.RejectedFile, match="can be written to by everybody"):
            kernel_files.read(path)

    def test_a_full_disk_leaves_nothing(self, stored, tmp_path, monkeypatch):
        def full(source, target):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            kernel_files.write(tmp_path / "new.kernel", b"new")
        assert set(tmp_path.iterdir()) == set(stored)


STEP = """
import warnings
warnings.simplefilter("always")
import numpy as np
from minires.kernels.runtime import jit
from minires.kernels.compiled import backend as fast
losses, p = fast.cross_entropy(np.zeros((2, 4), np.float32), np.zeros(2, np.int64), 0.0)
assert abs(losses[0] - np.log(4)) < 1e-6
assert np.abs(fast.cross_entropy_grad(p, np.zeros(2, np.int64), 0.0, losses)).max() < 2
print(jit.compiles.kernels)
"""
NAMES = "['_cross_entropy', '_cross_entropy_grad']\n"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache folder with two compiled kernels."""
    base = tmp_path_factory.mktemp("cache")
    assert python(STEP, MINIRES_CACHE_DIR=str(base)).stdout == NAMES
    (folder,) = base.iterdir()
    assert len(kernel_files.names(folder)) == 2
    return folder


@pytest.fixture
def intact(filled):
    """That folder; afterwards its files are as they were."""
    contents = {path: path.read_bytes() for path in filled.iterdir()}
    yield filled
    for path, content in contents.items():
        path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", ["flip", *(pytest.param(how, marks=pytest.mark.slow) for how in ("emptied", "truncated"))]
)
def test_a_process_compiles_damaged_kernels_again_and_says_so_once(intact, damage, page):
    for path in intact.glob("*.kernel"):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    found = python(STEP, MINIRES_CACHE_DIR=str(intact.parent))
    assert (found.returncode, found.stdout) == (0, NAMES), found.stderr
    said = [line for line in found.stderr.splitlines() if "damaged" in line]
    page(said[0].partition("UserWarning: ")[2])
    assert len(said) == 1
    again = python(STEP, MINIRES_CACHE_DIR=str(intact.parent))
    assert (again.returncode, again.stdout, again.stderr) == (0, "[]\n", "")


@pytest.fixture
def kernel(filled, monkeypatch):
    """A function that loads a kernel from a copy of ``filled``: the content that would be run, or None."""
    from minires.kernels.compiled import loss

    cache = kernel_cache.KernelCache(loss._cross_entropy.py_func, Folders(filled))
    (name,) = (name for name in kernel_files.names(filled) if name.startswith("loss._cross_entropy-"))
    monkeypatch.setattr(cache, "file_name", lambda sig: name)
    monkeypatch.setattr(kernel_cache, "_rebuild", lambda content, target_context: content)
    monkeypatch.setattr(kernel_cache, "_warned", set())
    return cache, filled / name


def test_what_passes_the_check_but_cannot_be_loaded_is_compiled_again(intact, monkeypatch):
    from numba.core.registry import cpu_target

    from minires.kernels.compiled import loss

    monkeypatch.setattr(kernel_cache, "_warned", set())
    cache = kernel_cache.KernelCache(loss._cross_entropy.py_func, Folders(intact))
    (name,) = (name for name in kernel_files.names(intact) if name.startswith("loss._cross_entropy-"))
    monkeypatch.setattr(cache, "file_name", lambda sig: name)
    kernel_files.write(intact / name, pickle.dumps("nothing of Numba's"))
    with pytest.warns(UserWarning, match="cannot be loaded"):
        assert cache.load_overload((), cpu_target.target_context) is None


def test_a_disk_that_is_full_does_not_end_anything(kernel, monkeypatch, page):
    class Result:
        library = lifted = ()
        _reduce = list

    Result.library = type("Library", (), {"has_dynamic_globals": False})
    cache, _ = kernel
    monkeypatch.setattr(kernel_files, "write", lambda path, content: full())

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.warns(UserWarning, match="No space") as caught:
        cache.save_overload((), Result())
    assert len(caught) == 1
    cache.save_overload((), Result())  # said once
    page(str(caught[0].message))


def mutate(rng, path, others):
    """Damage a file in one of many ways. Returns the name of the way."""
    data = path.read_bytes()
    way = rng.choice(
        ["flip", "flips", "truncate", "zero", "swap", "empty", "garbage", "repeat", "cut", "extend", "header"]
    )
    place = rng.randrange(len(data))
    length = rng.randrange(1, 5000)
    changed = {
        "flip": lambda: data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :],
        "flips": lambda: bytes(b ^ (rng.random() < 0.01) for b in data),
        "truncate": lambda: data[:place],
        "zero": lambda: data[:place] + bytes(min(length, len(data) - place)) + data[place + length :],
        "swap": lambda: rng.choice(others),
        "empty": lambda: b"",
        "garbage": lambda: rng.randbytes(length),
        "repeat": lambda: data + data[place:],
        "cut": lambda: data[:place] + data[place + length :],
        "extend": lambda: data + rng.randbytes(length),
        "header": lambda: rng.randbytes(49) + data[49:],
    }[way]()
    path.write_bytes(changed)
    return way, changed == data


@pytest.mark.slow
def test_2000_mutations_are_never_run(kernel, intact):
    cache, path = kernel
    data = path.read_bytes()
    content = kernel_files.read(path)
    others = [other.read_bytes() for other in intact.glob("*.kernel") if other != path] + [
        pickle.dumps(content),
        content,
    ]
    rng, seen, began = random.Random(0), {}, time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2000):
            path.write_bytes(data)
            way, same = mutate(rng, path, others)
            assert cache.load_overload((), None) == (content if same else None)
            seen[way] = seen.get(way, 0) + 1
    path.write_bytes(data)
    assert cache.load_overload((), None) == content
    assert len(seen) == 11
    assert time.monotonic() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KiB


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_processes_survive_mutations(intact, seed):
    rng = random.Random(seed)
    files = sorted(intact.glob("*.kernel"))
    contents = [path.read_bytes() for path in files]
    for path, other in zip(files, reversed(contents)):
        mutate(rng, path, [other])
    found = python(STEP, MINIRES_CACHE_DIR=str(intact.parent))
    assert found.returncode == 0, found.stderr
    assert found.stdout in (NAMES, "['_cross_entropy']\n", "['_cross_entropy_grad']\n")
    assert found.stderr.count("is damaged") == 1
