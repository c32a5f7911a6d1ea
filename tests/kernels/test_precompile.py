"""An empty cache is filled by several processes at once; if anything fails, kernels are compiled as they are needed."""

import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

from minires.kernels import precompile_tasks
from minires.kernels.compiled import backend
from minires.kernels.descriptors import STORE
from minires.kernels.runtime import jit, kernel_files, precompile, target
from minires.kernels.runtime.cache_folder import Folders

NAMES = tuple(precompile_tasks.TASKS)
ROOT = Path(__file__).parents[2]


def python(code, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder, in a process that has not looked into it yet."""
    monkeypatch.setattr(jit, "FOLDERS", Folders(tmp_path / "kernels"))
    jit.FOLDERS.folder.mkdir()
    monkeypatch.setattr(precompile, "_looked", False)
    monkeypatch.setattr(precompile, "usable_cores", lambda: 2)
    monkeypatch.setattr(jit.compiles, "kernels", [])
    monkeypatch.setattr(jit.compiles, "announce", False)
    monkeypatch.delenv("MINIRES_PRECOMPILE", raising=False)
    return jit.FOLDERS.folder


CHILD = """
import pathlib, sys
for name in sys.argv[2:]:
    pathlib.Path(sys.argv[1], f"{name}-1.0123.kernel").write_text(name)
"""


@pytest.fixture
def children(folder, monkeypatch):
    """Stand-ins for the compiling processes: the code that they run, which a test may replace, and all that were started."""
    found = {"code": CHILD, "running": []}

    def start(names):
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


@pytest.mark.parametrize(
    ("side", "dtype", "epilogue", "wanted"),
    [
        pytest.param(8, np.float32, STORE, True, id="fused"),
        pytest.param(8, np.float32, None, False, id="small"),
        pytest.param(512, np.float32, None, True, id="large"),
        pytest.param(512, np.float64, None, False, id="float64"),
    ],
)
def test_which_convolutions_begin_a_network(monkeypatch, side, dtype, epilogue, wanted):
    calls = []
    monkeypatch.setattr(precompile, "first_time", lambda: calls.append(1))
    one = (1, 1)
    backend.conv2d(np.zeros((1, side, side, 1), dtype), np.zeros((1, 1, 1, 1), dtype), one, (0, 0), one, 1, epilogue)
    assert bool(calls) == wanted


def test_every_task_is_assigned():
    assert set(precompile_tasks.TASKS) == set(precompile.SECONDS)


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_processes_fill_the_folder(folder, children):
    precompile.first_time()
    names = sorted(name for share in precompile.shares(2) for name in share)
    assert sorted(jit.compiles.kernels) == names
    assert contents(folder) == sorted([*(f"{name}-1.0123.kernel" for name in names), precompile.DONE, precompile.LOCK])
    assert precompile.complete()
    precompile.first_time()
    assert len(children["running"]) == 2


@pytest.mark.parametrize("code", ["raise SystemExit(3)", CHILD + "raise ValueError", "import os; os.abort()"])
def test_what_a_failed_process_leaves_is_used(folder, children, monkeypatch, code):
    """Where processes fail by themselves, they are not started at every start of minires."""
    children["code"] = code
    precompile.first_time()
    assert {path.name for path in folder.glob("*.kernel")} == (
        {f"{n}-1.0123.kernel" for n in NAMES} if "write" in code else set()
    )
    monkeypatch.setattr(precompile, "_looked", False)
    precompile.first_time()
    assert len(children["running"]) == (2 if "SystemExit" in code or "write" in code else 4)


@pytest.mark.parametrize(
    "left", [["direct._convolve-59.0123.kernel"], [".direct._convolve-59.0123.kernel.0a1b2c3d.tmp"]]
)
def test_what_a_killed_process_has_left_does_not_switch_precompiling_off(folder, children, left):
    """Of the first two kernels, whose presence used to mean that all are there, or half of a file."""
    for name in left:
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    precompile.first_time()
    assert len(children["running"]) == 2
    assert not list(folder.glob(".*"))


def test_kernels_that_have_gone_are_compiled_again(folder, children, monkeypatch):
    precompile.first_time()
    (folder / "rest-1.0123.kernel").unlink()
    monkeypatch.setattr(precompile, "_looked", False)
    precompile.first_time()
    assert len(children["running"]) == 4
    assert precompile.complete()


def test_a_read_only_folder_that_is_complete_is_enough(folder, children, monkeypatch, tmp_path):
    precompile.first_time()
    monkeypatch.setattr(jit, "FOLDERS", Folders(tmp_path / "own", shared=folder))
    assert precompile.complete()


def test_an_interrupt_ends_the_processes(folder, children, monkeypatch):
    children["code"] = "import time; time.sleep(60)"
    began = time.monotonic()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(precompile, "note_complete", None)  # must not be reached
    start = precompile._start
    monkeypatch.setattr(precompile, "_start", lambda *a: start(*a) if not children["running"] else interrupted())
    with pytest.raises(KeyboardInterrupt):
        precompile.first_time()
    assert children["running"][0].poll() is not None
    assert time.monotonic() - began < 30
    assert contents(folder) == [precompile.LOCK]


def test_when_no_process_is_started(folder, children, monkeypatch):
    def nothing_starts():
        monkeypatch.setattr(precompile, "_looked", False)
        precompile.first_time()
        return not children["running"]

    with monkeypatch.context() as patch:
        patch.setenv("MINIRES_PRECOMPILE", "0")
        assert nothing_starts()
    with monkeypatch.context() as patch:
        patch.setattr(precompile, "usable_cores", lambda: 1)
        assert nothing_starts()
    with monkeypatch.context() as patch:
        patch.setattr(jit, "FOLDERS", Folders())
        assert nothing_starts()
    for executable in (None, "", "/usr/bin/blender"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", executable)
            assert nothing_starts()
    (folder / "winograd._convolve-1.0123.kernel").touch()
    precompile.note_complete()
    assert nothing_starts()


def test_processes_that_cannot_be_started(folder, monkeypatch):
    def refused(*args, **options):
        raise PermissionError("no processes here")

    monkeypatch.setattr(precompile.subprocess, "Popen", refused)
    precompile.first_time()
    assert contents(folder) == [precompile.LOCK]


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
        (folder / "direct._convolve-1.0123.kernel").touch()
        precompile.note_complete()
        holder.kill()

    began = time.monotonic()
    threading.Timer(0.5, done).start()
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


@pytest.fixture
def real(tmp_path, monkeypatch):
    """An empty cache folder of the name that compiling processes expect."""
    folder = tmp_path / "cache" / jit.FOLDERS.folder.name
    folder.mkdir(parents=True)
    monkeypatch.setattr(jit, "FOLDERS", Folders(folder))
    return folder


@pytest.mark.parametrize("path", [[], [""], ["."]])
def test_no_module_of_the_current_folder_is_run(real, tmp_path, monkeypatch, path):
    for name in ("numba", "numpy", "llvmlite", "random", "hashlib"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'evidence')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", path + sys.path)
    process = precompile._start([])
    try:
        assert process.wait(60) == 0
    finally:
        precompile._stop(process)
    assert not (tmp_path / "evidence").exists()


def is_running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes in /proc")
def test_compiling_processes_end_with_the_one_that_started_them(real):
    """However it ends: the kernel closes its end of the pipe."""
    code = """
import sys, time
from pathlib import Path
from minires.kernels.runtime import jit, precompile
from minires.kernels.runtime.cache_folder import Folders
jit.FOLDERS = Folders(Path(sys.argv[1]))
print(*[precompile._start(names).pid for names in precompile.shares(2)], flush=True)
time.sleep(60)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", code, real], env=env, stdout=subprocess.PIPE, text=True) as parent:
        pids = parent.stdout.readline().split()
        assert len(pids) == 2
        until = time.monotonic() + 60
        while not kernel_files.names(real) and time.monotonic() < until:
            time.sleep(0.05)
        assert all(map(is_running, pids))  # and compiling
        parent.kill()
    until = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, pids))
    assert time.monotonic() < until


def test_a_python_that_ignores_its_environment_does_not_hand_it_on(real, monkeypatch):
    started = {}
    monkeypatch.setattr(subprocess, "Popen", lambda command, env, **_: started.update(command=command, env=env))
    monkeypatch.setenv("PYTHONSTARTUP", "somewhere")
    monkeypatch.setattr(sys, "flags", types.SimpleNamespace(ignore_environment=1, no_user_site=1))
    precompile._start(["rest"])
    assert "PYTHONSTARTUP" not in started["env"]
    assert started["command"][1:4] == ["-P", "-s", "-m"]
    assert str(ROOT) in started["env"]["PYTHONPATH"].split(os.pathsep)
    assert started["env"]["MINIRES_CACHE_DIR"] == str(real.parent)


def test_a_process_that_would_compile_other_kernels_stops():
    assert precompile_tasks.main("/kernels-avx2-000000000000", "direct") == 3


STEP = """
import numpy as np, minires as mr
from minires import functional as F
from minires.kernels.runtime import precompile
precompile.usable_cores = lambda: 2
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
    (folder,) = (tmp_path / "together").iterdir()
    assert len(list(folder.glob("*.kernel"))) == precompile.NEEDED[target.KIND]
    assert "_weight_grad" in alone.stdout.splitlines()[1]
