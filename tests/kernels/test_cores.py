"""How many cores there are to use, and whether others want them: files of the system, whole, damaged or absent."""

import itertools
import os

import numpy as np
import pytest

from minires import kernels
from minires.kernels.runtime import cores, threads


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", None), ("150000 100000", 1.5), ("50000 100000\n", 0.5), ("400000 100000", 4.0), ("", None),
        ("100000", None), ("-1 100000", None), ("0 100000", None), ("100000 0", None), ("1 2 3", None), ("a b", None),
    ],
)  # fmt: skip
def test_quota_of_version_2(tmp_path, text, expected):
    (tmp_path / "cpu.max").write_text(text)
    assert cores.quota(tmp_path) == expected


@pytest.mark.parametrize(
    ("granted", "period", "expected"),
    [("-1", "100000", None), ("200000\n", "100000\n", 2.0), ("x", "1", None), ("1", None, None), (None, "1", None)],
)
def test_quota_of_version_1(tmp_path, granted, period, expected):
    (tmp_path / "cpu").mkdir()
    for name, text in (("quota", granted), ("period", period)):
        if text is not None:
            (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(text)
    assert cores.quota(tmp_path) == expected


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "cpu.max").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "loadavg").write_bytes(b"\xff\xfe\x00")
    assert cores.quota(tmp_path) is None
    assert cores.running(tmp_path / "loadavg") == 0
    assert cores.running(tmp_path / "not there") == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("0.50 0.40 0.30 3/912 4711\n", 3), ("0.5 0.4", 0), ("a b c d/e f", 0), ("", 0)]
)
def test_running_threads(tmp_path, text, expected):
    (tmp_path / "loadavg").write_text(text)
    assert cores.running(tmp_path / "loadavg") == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, 4), (0.5, 1), (1.0, 1), (2.9, 2), (64.0, 4)])
def test_usable_cores(monkeypatch, limit, expected):
    monkeypatch.setattr(cores, "physical_cores", lambda: 4)
    monkeypatch.setattr(cores, "quota", lambda: limit)
    assert cores.usable_cores() == expected


def test_the_load_is_looked_at_once_a_second(monkeypatch):
    looks, clock = [], itertools.count(1000, 0.25)
    monkeypatch.setattr(cores, "running", lambda: looks.append(1) or (10**6 if len(looks) != 3 else 0))
    monkeypatch.setattr(cores.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cores, "_looked", 0.0)
    monkeypatch.setattr(cores, "_crowded", False)
    monkeypatch.setattr(cores, "_many", False)
    assert [cores.crowded() for _ in range(20)] == [False] * 4 + [True] * 4 + [False] * 8 + [True] * 4
    assert len(looks) == 5


@pytest.mark.parametrize("is_crowded", [False, True])
def test_small_work_runs_on_one_thread_the_more_so_if_others_want_the_cores(monkeypatch, is_crowded):
    monkeypatch.setattr(threads, "crowded", lambda: is_crowded)
    monkeypatch.setattr(threads, "get_num_threads", lambda: 2)
    found = []
    monkeypatch.setattr(threads, "ready", lambda count: found.append(count) or os.abort())

    def kernel(share, shares, thread, x):
        found.append(1)

    for size in (threads.SMALL - 8, threads.SMALL, threads.SMALL_IF_CROWDED - 8):
        if size >= (threads.SMALL_IF_CROWDED if is_crowded else threads.SMALL):
            assert threads.least_work() <= size
        else:
            threads.launch(kernel, np.zeros(size // 8))
    assert found == ([1, 1, 1] if is_crowded else [1])


def test_a_crowd_changes_no_bit(monkeypatch):
    w = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    images = np.random.default_rng(1).standard_normal((8, 14, 14, 64)).astype(np.float32)
    results = []
    for is_crowded in (False, True):
        monkeypatch.setattr(threads, "crowded", lambda is_crowded=is_crowded: is_crowded)
        results.append(kernels.conv2d(images, w, (1, 1), (1, 1), (1, 1), 1).tobytes())
    assert results[0] == results[1]
