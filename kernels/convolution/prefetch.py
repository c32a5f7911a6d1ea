"""Software prefetch: brings what a convolution needs next into the cache while it computes.

A convolution reads a work item, computes on it for a long time, and writes it. What it reads and writes next is not in
cache, and layers with few channels would spend much of their time waiting for memory. So the products of one item prefetch
shares of what comes next: the item's outputs, what the epilogue reads, and the next item's inputs. Values do not depend on
it.

Streams are an int64 array with one row (address, bytes of a share, bytes of a block, how) per prefetched array. An item
is computed in blocks, each of which prefetches its shares in turn. A prefetch is a hint: beyond an array's end it does
nothing.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..runtime.jit import njit

LINE = 64  # bytes of a cache line
STREAMS = 6  # of one convolution, at most
READ, WRITE, FAR = 0, 1, 2  # how a stream is prefetched: for reading, for writing, for reading into the L2 cache alone


@njit(inner=True)
def address(array):
    """The array's address as a signed integer: in Numba, unsigned plus signed is a float."""
    return np.int64(array.ctypes.data)


@intrinsic(prefer_literal=True)
def prefetch_line(typingctx, address, how):
    """Prefetch the cache line at an address; ``how`` is READ, WRITE or FAR. It is a hint: any address is valid."""
    if not isinstance(how, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        signature = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
        hint = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), signature)
        written, near, data = i32(int(how.literal_value == WRITE)), i32(2 if how.literal_value == FAR else 3), i32(1)
        builder.call(hint, [builder.inttoptr(args[0], pointer), written, near, data])
        return context.get_dummy_value()

    return types.void(types.intp, how), codegen


@njit(inner=True)
def add_stream(
    streams, n,  # the streams, and how many there are
    array, start, stop,  # the stream to add: array[start:stop], 1-D
    blocks, shares,  # the blocks that it is prefetched in, and the shares of a block
    how,  # READ, WRITE or FAR
):  # fmt: skip
    """Add a stream. Returns their new number, n + 1."""
    size = max(0, stop - start) * array.itemsize
    block = (size + blocks - 1) // blocks
    streams[n, 0] = address(array) + start * array.itemsize
    streams[n, 1] = (block + shares * LINE - 1) // (shares * LINE) * LINE
    streams[n, 2] = block
    streams[n, 3] = how
    return n + 1


@njit(inner=True)
def share_lines(streams, n, share):
    """The addresses of the cache lines in one share of stream n's current block."""
    start = streams[n, 0] + share * streams[n, 1]
    return range(start, start + streams[n, 1], LINE)


@njit(inner=True)
def prefetch_share(streams, share):
    """Prefetch one share of every stream's current block."""
    for n in range(streams.shape[0]):
        if streams[n, 3] == WRITE:
            for line in share_lines(streams, n, share):
                prefetch_line(line, WRITE)
        elif streams[n, 3] == FAR:
            for line in share_lines(streams, n, share):
                prefetch_line(line, FAR)
        else:
            for line in share_lines(streams, n, share):
                prefetch_line(line, READ)


@njit(inner=True)
def next_block(streams):
    """Advance every stream to its next block."""
    for n in range(streams.shape[0]):
        streams[n, 0] += streams[n, 2]
