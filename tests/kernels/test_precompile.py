"""An empty cache is filled by several processes at once; if anything fails, kernels are compiled as they are needed."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minires.kernels import precompile_tasks
from minires.kernels.runtime import jit, precompile

ROOT = Path(__file__).parents[2]


def python(code, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder, in a process that has not looked into it yet."""
    monkeypatch.setattr(jit, "FOLDER", tmp_path / "kernels")
    jit.FOLDER.mkdir()
    monkeypatch.setattr(precompile, "_looked", False)
    monkeypatch.setattr(precompile, "physical_cores", lambda: 2)
    monkeypatch.setattr(jit.compiles, "kernels", [])
    monkeypatch.setattr(jit.compiles, "announce", False)
    monkeypatch.delenv("MINIRES_PRECOMPILE", raising=False)
    return jit.FOLDER


CHILD = """
import pathlib, sys
here = pathlib.Path(sys.argv[1], "kernels", "sources")
here.mkdir(parents=True)
for name in sys.argv[2:]:
    (here / f"{name}-1.py311.nbi").write_text(name)
    (here / f"{name}-1.py311.1.nbc").write_text(sys.argv[1])
"""


@pytest.fixture
def children(monkeypatch):
    """Stand-ins for the compiling processes: the code that they run, which a test may replace, and all that were started."""
    found = {"code": CHILD, "running": []}

    def start(names, folder):
        process = subprocess.Popen([sys.executable, "-c", found["code"], folder, *names])
        found["running"].append(process)
        return process

    monkeypatch.setattr(precompile, "_start", start)
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shares(processes):
    names = precompile.SECONDS
    lists = precompile.shares(processes)
    assert len(lists) == processes
    assert sorted(name for share in lists for name in share) == sorted(names)
    totals = [sum(names[name] for name in share) for share in lists]
    assert max(totals) <= sum(totals) / processes + max(names.values()) / 2


def test_every_task_is_assigned():
    assert set(precompile_tasks.TASKS) == set(precompile.SECONDS)


def test_compiled_kernels_are_moved_into_the_folder(folder, children):
    precompile.first_time()
    names = sorted(name for share in precompile.shares(2) for name in share)
    assert sorted(path.name.split("-")[0] for path in folder.rglob("*.nbi")) == names
    assert sorted(path.name.split("-")[0] for path in folder.rglob("*.nbc")) == names
    assert sorted(jit.compiles.kernels) == names
    assert sorted(path.name for path in folder.iterdir()) == [precompile.LOCK, "sources"]  # no scratch folder
    precompile.first_time()
    assert len(children["running"]) == 2


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import os; os.abort()", CHILD + "raise ValueError"])
def test_a_failed_process_leaves_nothing(folder, children, code):
    children["code"] = code
    precompile.first_time()
    assert [path.name for path in folder.iterdir()] == [precompile.LOCK]


def test_existing_files_are_kept(folder, children):
    """Another process may have compiled in the meantime, and an index belongs to the code that it lists."""
    (folder / "sources").mkdir()
    (folder / "sources" / "direct-1.py311.nbi").write_text("theirs")
    (folder / "sources" / "direct-1.py311.1.nbc").write_text("theirs")
    precompile.first_time()
    assert (folder / "sources" / "direct-1.py311.nbi").read_text() == "theirs"
    assert (folder / "sources" / "direct-1.py311.1.nbc").read_text() == "theirs"
    assert (folder / "sources" / "rest-1.py311.nbi").exists()


def test_an_interrupt_ends_the_processes(folder, children, monkeypatch):
    children["code"] = "import time; time.sleep(60)"
    began = time.monotonic()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(precompile, "_adopt", None)  # must not be reached
    start = precompile._start
    monkeypatch.setattr(precompile, "_start", lambda *a: start(*a) if not children["running"] else interrupted())
    with pytest.raises(KeyboardInterrupt):
        precompile.first_time()
    assert children["running"][0].poll() is not None
    assert time.monotonic() - began < 30
    assert [path.name for path in folder.iterdir()] == [precompile.LOCK]


def test_when_no_process_is_started(folder, children, monkeypatch):
    def nothing_starts():
        monkeypatch.setattr(precompile, "_looked", False)
        precompile.first_time()
        return not children["running"]

    with monkeypatch.context() as patch:
        patch.setenv("MINIRES_PRECOMPILE", "0")
        assert nothing_starts()
    with monkeypatch.context() as patch:
        patch.setattr(precompile, "physical_cores", lambda: 1)
        assert nothing_starts()
    with monkeypatch.context() as patch:
        patch.setattr(jit, "FOLDER", None)
        assert nothing_starts()
    for executable in (None, "", "/usr/bin/blender"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", executable)
            assert nothing_starts()
    (folder / "sources").mkdir()
    (folder / "sources" / "winograd._convolve-1.py311.nbi").write_text("")
    assert nothing_starts()


def test_processes_that_cannot_be_started(folder, monkeypatch):
    def refused(*args, **options):
        raise PermissionError("no processes here")

    monkeypatch.setattr(precompile.subprocess, "Popen", refused)
    precompile.first_time()
    assert [path.name for path in folder.iterdir()] == [precompile.LOCK]


HOLDER = """
import os, sys, time
from minires.lock import try_lock
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try_lock(descriptor)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(folder):
    """Another process that is already compiling."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", HOLDER, folder / precompile.LOCK]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_process_at_a_time(folder, children, holder):
    def done():
        (folder / "sources").mkdir()
        (folder / "sources" / "direct._convolve-1.py311.nbi").write_text("")
        holder.kill()

    threading.Timer(0.5, done).start()
    began = time.monotonic()
    precompile.first_time()
    assert time.monotonic() - began >= 0.4
    assert not children["running"]


def test_a_killed_process_does_not_keep_others_waiting(folder, children, holder):
    holder.kill()
    holder.wait()
    assert (folder / precompile.LOCK).exists()  # but it is not locked
    precompile.first_time()
    assert len(children["running"]) == 2


def test_waiting_for_another_process_is_limited(folder, children, holder, monkeypatch):
    monkeypatch.setattr(precompile, "PATIENCE", 0.2)
    precompile.first_time()
    assert not children["running"]


def test_without_locks_kernels_are_compiled_as_they_are_needed(folder, children, monkeypatch):
    def refuse(descriptor):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(precompile, "try_lock", refuse)
    precompile.first_time()
    assert not children["running"]


def test_a_process_that_would_compile_other_kernels_stops():
    assert precompile_tasks.main("kernels-avx2-000000000000", "direct") == 3


STEP = """
import numpy as np, minires as mr
from minires import functional as F
from minires.kernels.runtime import precompile
precompile.physical_cores = lambda: 2
from numba.core import event
class Here(event.Listener):
    names = []
    def on_start(self, started): self.names.append(started.data["dispatcher"].__name__)
    def on_end(self, ended): pass
event.register("numba:compile", Here())
mr.manual_seed(0)
model = mr.models.create("resnet8")
optimizer = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
x = mr.tensor(np.random.default_rng(0).standard_normal((128, 3, 32, 32)).astype(np.float32))
loss = F.cross_entropy(model(x), np.zeros(128, np.int64))
loss.backward()
optimizer.step()
print(loss.item().hex(), sum(float(p.numpy().astype(float).sum()) for p in model.parameters()).hex())
print(Here.names)
"""


@pytest.mark.slow
def test_a_cold_start(tmp_path):
    """The tasks cover a training step: the process itself compiles nothing. The results have the same bits as without them."""
    together = python(STEP, MINIRES_CACHE_DIR=str(tmp_path / "together"))
    alone = python(STEP, MINIRES_CACHE_DIR=str(tmp_path / "alone"), MINIRES_PRECOMPILE="0")
    assert (together.returncode, alone.returncode) == (0, 0), together.stderr + alone.stderr
    assert together.stderr.count("compiling") == alone.stderr.count("compiling") == 1
    assert together.stdout.splitlines()[0] == alone.stdout.splitlines()[0]
    assert together.stdout.splitlines()[1] == "[]"
    assert "_weight_grad" in alone.stdout.splitlines()[1]
