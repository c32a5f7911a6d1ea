"""What happens only on other machines and systems: their names, their system calls, and features that they lack."""

import mmap
import os
import subprocess
import sys
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from minires.kernels.convolution.microkernel import indirect_micro_kernel
from minires.kernels.runtime import cores, memory_pool, target


@pytest.mark.parametrize(
    ("triple", "name", "features", "kind"),
    [
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon,+fp-armv8", "neon"),
        ("arm64-apple-darwin23", "apple-m1", "", "neon"),
        ("x86_64-unknown-linux-gnu", "znver3", "+avx2,+fma,-avx512f", "avx2"),
        ("x86_64-unknown-linux-gnu", "znver4", "+avx2,+fma,+avx512f", "avx512"),
        ("x86_64-unknown-linux-gnu", "skylake", "+avx2,-fma", "plain"),  # a virtual machine may hide some
        ("x86_64-unknown-linux-gnu", "haswell", "", "avx2"),
        ("x86_64-unknown-linux-gnu", "skylake-avx512", "", "avx512"),
        ("x86_64-unknown-linux-gnu", "nehalem", "", "plain"),
        ("riscv64-unknown-linux-gnu", "generic-rv64", "+avx2,+fma", "plain"),
    ],
)
def test_the_target_follows_from_the_cpu_and_its_features(monkeypatch, triple, name, features, kind):
    monkeypatch.setattr(target, "TRIPLE", triple)
    monkeypatch.setattr(target, "CPU_NAME", name)
    monkeypatch.setattr(target, "CPU_FEATURES", features)
    assert target._kind() == kind


class TestMacCores:
    @pytest.fixture(autouse=True)
    def darwin(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")

    def test_the_system_reports_them(self, monkeypatch):
        monkeypatch.setattr(subprocess, "run", lambda command, **how: SimpleNamespace(stdout=b"6\n"))
        assert cores.physical_cores.__wrapped__() == 6

    @pytest.mark.parametrize("error", [FileNotFoundError(2, "no sysctl"), subprocess.CalledProcessError(1, "sysctl")])
    def test_otherwise_logical_cores_are_counted(self, monkeypatch, error):
        def fails(command, **how):
            raise error

        monkeypatch.setattr(subprocess, "run", fails)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 3}, raising=False)
        assert cores.physical_cores.__wrapped__() == 3


@pytest.mark.parametrize("lacking", [("MAP_PRIVATE", "MAP_ANONYMOUS", "MADV_HUGEPAGE"), ("MADV_HUGEPAGE",), ()])
def test_fresh_memory_is_writable_and_page_aligned(monkeypatch, lacking):
    for name in lacking:
        monkeypatch.delattr(mmap, name, raising=False)
    memory = memory_pool._map(3 * mmap.PAGESIZE)
    array = np.frombuffer(memory, np.uint8)
    assert array.size == 3 * mmap.PAGESIZE
    assert array.ctypes.data % mmap.PAGESIZE == 0
    array[:] = 7
    assert memory[-1] == 7


def test_the_tiles_shape_must_be_known_at_compile_time():
    """Rows that are known only at run time are a typing error, not a tile of another shape."""

    @numba.njit
    def tile(rows, a):
        indirect_micro_kernel(np.float32, rows, 1, 0, a, a, a, a, a, a, a, a, a, a)

    with pytest.raises(numba.TypingError):
        tile.compile((numba.int64, numba.intp))
