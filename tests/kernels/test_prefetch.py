"""Software prefetch, and reference counts in threads: neither shows in a result, so the code itself is inspected."""

import re

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.kernels.convolution.prefetch import (
    LINE,
    STREAMS,
    add_stream,
    address,
    next_block,
    prefetch_line,
    share_lines,
)
from minires.kernels.runtime.parallel import on_threads
from minires.kernels.runtime.workers import Workers


@numba.njit
def prefetched_lines(array, start, stop, blocks, shares):
    """The cache lines that all shares of all blocks prefetch, counted from the array's first."""
    streams = np.zeros((STREAMS, 4), np.int64)
    used = streams[: add_stream(streams, 0, array, start, stop, blocks, shares, 1)]
    lines, first = [0 for _ in range(0)], address(array)
    for _ in range(blocks):
        for share in range(shares):
            lines += [(line - first) // LINE for line in share_lines(used, 0, share)]
        next_block(used)
    return lines


@given(
    st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 9), st.integers(1, 40), st.sampled_from("fd"),
)  # fmt: skip
def test_shares_cover_a_stream(start, length, blocks, shares, dtype):
    """Every cache line of the stream is prefetched, and few others."""
    array = np.empty(start + length + LINE, dtype)
    array = array[-array.ctypes.data % LINE // array.itemsize :]  # aligned to a cache line
    lines = prefetched_lines(array, start, start + length, blocks, shares)
    first, behind = start * array.itemsize // LINE, -(-(start + length) * array.itemsize // LINE)
    # A share begins where the last one ended, possibly within a line, so that the stream's last line may be left out.
    assert set(range(first, behind - 1)) <= set(lines)
    assert len(lines) <= behind - first + 2 * blocks * shares


def machine_code(function, signature):
    function.compile(signature)
    return function.inspect_asm(signature)


@pytest.mark.parametrize("write", [0, 1])
def test_a_prefetch_is_one_instruction(write):
    @numba.njit(no_cpython_wrapper=True)
    def kernel(at):
        if write:
            prefetch_line(at, 1)
        else:
            prefetch_line(at, 0)

    code = machine_code(kernel, (numba.int64,))
    assert len(re.findall(r"^\s+(prefetch\w+|prfm)\s", code, flags=re.MULTILINE)) == 1


def test_threads_count_no_references():
    """Otherwise all threads would count references to slices of a shared array at the same address."""

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(share, shares, thread, x, y):
        if share < 0:
            return on_threads(share, shares)
        y[share] = x[share::shares].sum()
        return 0

    x, y = np.arange(10.0), np.zeros(3)
    assert kernel(-Workers(2).ready(1), 3, 0, x, y) == 0
    assert y.tolist() == [18.0, 12.0, 15.0]
    share = re.search(r"define internal .*?\.share.*?\n}", kernel.inspect_llvm(kernel.signatures[0]), flags=re.DOTALL)
    call = re.search(r"call .*@[^\n]*", share[0])[0]
    assert len(re.findall(r"\bnull\b", call)) == 4, call  # memory info and parent of two arrays
