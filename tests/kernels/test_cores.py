"""The cores that a process may use, what others leave of them, and how many threads a kernel is worth."""

import math
import re
from pathlib import Path

import pytest

from minires.kernels.convolution.work_items import multiply_adds, problem_of
from minires.kernels.runtime import cores, work

KERNELS = Path(cores.__file__).parent.parent


def cgroup(tmp_path, membership, **files):
    """A quota: ``files`` by their paths below the mount, with __ for /."""
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/").replace("_max", ".max").replace("_cfs", ".cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return cores.quota(tmp_path / "cgroup", tmp_path / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu_max": b"150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu_max": b"max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a__b__cpu_max": b"max 100000", "a__cpu_max": b"50000 100000", "cpu_max": b"max 1"}, 0.5),
        ("0::/a/b\n", {"a__b__cpu_max": b"100000 100000", "a__cpu_max": b"300000 100000"}, 1),
        ("0::/of/the/host\n", {"cpu_max": b"200000 100000"}, 2),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n",
            {"cpu,cpuacct__x__cpu_cfs_quota_us": b"50000\n", "cpu,cpuacct__x__cpu_cfs_period_us": b"100000\n"},
            0.5,
        ),
        ("1:cpu:/\n", {"cpu__cpu_cfs_quota_us": b"-1\n", "cpu__cpu_cfs_period_us": b"100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu_max": b""}, math.inf),
        ("0::/\n", {"cpu_max": b"\xff\xfe 100000"}, math.inf),
        ("0::/\n", {"cpu_max": b"100000 0"}, math.inf),
        ("0::/\n", {"cpu_max": b"many few"}, math.inf),
        ("nonsense", {"cpu_max": b"100000 100000"}, math.inf),
    ],
)
def test_the_quota_of_a_cgroup(tmp_path, membership, files, expected):
    assert cgroup(tmp_path, membership, **files) == expected


def test_without_cgroups_there_is_no_quota(tmp_path):
    assert cores.quota(tmp_path, tmp_path / "absent") == math.inf


@pytest.mark.parametrize(("limit", "expected"), [(0.3, 1), (1.0, 1), (2.5, 3), (100.0, 6), (math.inf, 6)])
def test_the_default_number_of_threads_respects_the_quota(monkeypatch, limit, expected):
    monkeypatch.setattr(cores, "physical_cores", lambda: 6)
    monkeypatch.setattr(cores, "quota", lambda: limit)
    assert cores.usable_cores.__wrapped__() == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0.1 0.2 0.3 5/90 77\n", 5), ("", None), ("0.1 0.2 0.3 x/90", None), ("0.1", None)]
)
def test_threads_that_run(tmp_path, text, expected):
    (tmp_path / "loadavg").write_text(text)
    assert cores.runnable_threads(tmp_path / "loadavg") == expected
    assert cores.runnable_threads(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("cpus", "allowed", "running", "own", "others", "fair"),
    [
        (2, 2, 2, 2, 0, None),
        (2, 2, 2, 1, 1, 2),
        (2, 2, 4, 2, 2, 1),
        (8, 8, 9, 8, 1, 8),
        (8, 8, 16, 8, 8, 4),
        (8, 2, 7, 1, 0, None),  # the other six CPUs have room for the other six threads
        (8, 2, 9, 1, 2, 1),
        (2, 2, 1, 3, 0, None),
        (2, 2, None, 1, 0, None),
    ],
)
def test_what_others_leave(monkeypatch, cpus, allowed, running, own, others, fair):
    monkeypatch.setattr(cores.os, "cpu_count", lambda: cpus)
    monkeypatch.setattr(cores, "allowed_cpus", lambda: set(range(allowed)))
    monkeypatch.setattr(cores, "runnable_threads", lambda: running)
    now = [1000.0]
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    load = cores.Load()
    for expected in (0, others, others):  # once may be chance
        load.look(lambda: own)
        now[0] += 1.5
        assert load.others == expected
        assert load.fair_share == fair if fair and expected else load.fair_share > 1000


def test_what_runs_for_a_moment_costs_nothing(monkeypatch):
    now, running = [1000.0], iter([2, 9, 2, 9, 2])
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cores, "allowed_cpus", lambda: {0, 1})
    monkeypatch.setattr(cores, "runnable_threads", lambda: next(running))
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    load = cores.Load()
    for _ in range(5):
        load.look(lambda: 2)
        now[0] += 1.5
        assert (load.others, load.fair_share) == (0, cores.sys.maxsize)


def test_what_was_seen_before_a_pause_is_forgotten(monkeypatch):
    """A step every few seconds, each time just after another library's threads have begun to spin down."""
    now, looks = [1000.0], []
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cores, "allowed_cpus", lambda: {0, 1})
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    load = cores.Load()
    for _ in range(5):
        for at, running in ((0, 5), (0.03, 5), (0.06, 2), (0.5, 5)):
            monkeypatch.setattr(cores, "runnable_threads", lambda running=running: looks.append(0) or running)
            now[0] += at
            load.look(lambda: 2)
            assert (load.others, load.fair_share) == (0, cores.sys.maxsize)
        now[0] += 10
    assert len(looks) == 2 * 5


def test_a_busy_neighbour_is_known_soon(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cores, "allowed_cpus", lambda: {0, 1})
    monkeypatch.setattr(cores, "runnable_threads", lambda: 3)
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    load = cores.Load()
    for wait, others in ((0, 0), (0.04, 0), (0.02, 1), (1.01, 1), (5, 0), (0.06, 1)):
        now[0] += wait
        load.look(lambda: 2)
        assert load.others == others


def test_the_load_is_looked_at_once_a_second(monkeypatch):
    looks, now = [], [1000.0]
    monkeypatch.setattr(cores, "runnable_threads", lambda: looks.append(now[0]) or 1)
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    load = cores.Load()
    for _ in range(100):
        load.look(lambda: 1)
        now[0] += 0.05
    assert len(looks) == 6  # the first is followed by one soon after


def test_a_thread_gets_enough_to_do():
    for name in (*work.NANOSECONDS, "another"):
        rate = work.NANOSECONDS.get(name, work.USUAL)
        before = 1
        for amount in (0, 1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 22, 1 << 30):
            threads, shares = work.divide(name, amount, 8)
            assert before <= threads <= 8
            assert threads == 1 or amount * rate / threads >= work.LEAST
            assert shares in {threads * n for n in range(1, work.SHARES + 1)}
            assert shares <= threads or amount * rate / shares >= work.LEAST_SHARE
            before = threads
        assert (threads, shares) == (8, 8 * work.SHARES)
        assert work.divide(name, 1 << 30, 1) == (1, 1)


def test_a_small_kernel_does_not_wake_many(monkeypatch):
    monkeypatch.setattr(work, "NANOSECONDS", {"_relu": 0.06})
    monkeypatch.setattr(work, "LEAST", 10_000)
    monkeypatch.setattr(work, "LEAST_SHARE", 20_000)
    expected = [(1, 1), (1, 1), (3, 3), (6, 6), (8, 8), (8, 24), (8, 32)]
    assert [work.divide("_relu", 1 << n, 8) for n in (16, 18, 19, 20, 22, 23, 24)] == expected


def test_a_convolution_is_measured_by_its_multiply_adds():
    for groups in (1, 4):
        problem = problem_of((2, 9, 7, 8), (3, 5, 8 // groups, 12), (2, 1), (1, 2), (1, 1), groups)
        assert problem.y_shape == (2, 5, 7, 12)
        assert multiply_adds(problem) == 2 * 5 * 7 * 12 * 3 * 5 * 8 // groups


def test_the_table_names_every_kernel_of_a_training_step():
    sources = "".join(path.read_text("utf-8") for path in KERNELS.rglob("*.py"))
    launched = set(re.findall(r"launch\(\s*(_\w+)", sources))
    assert set(work.NANOSECONDS) <= launched
    assert launched - set(work.NANOSECONDS) <= {"_draw_all", "_find"}, "python -m benchmarks.work_table"
