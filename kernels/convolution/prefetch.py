"""Software prefetch: what a convolution will need next is brought towards the cache while it computes.

A convolution reads an item of work, computes on it for long, and writes it. What it reads and writes next is not in cache, and
layers with few channels would spend much of their time waiting. So the products of one item prefetch shares of what comes
next: the outputs that they will be written to, what the epilogue reads, the next item's inputs. No value depends on it.

Streams are an int64 array, a row (address, bytes of a share, bytes of a block, written?) for each array. An item is computed
in blocks, and each prefetches its shares in turn. A prefetch is a hint: beyond an array's end it touches nothing.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..runtime.jit import njit

LINE = 64  # bytes of a cache line
STREAMS = 6  # that one convolution has, at most


@njit(inner=True)
def address(array):
    """Its address, signed: the sum of an unsigned and a signed integer is a float to Numba."""
    return np.int64(array.ctypes.data)


@intrinsic(prefer_literal=True)
def prefetch_line(typingctx, address, write):
    """Prefetch the cache line at an address, to be read (write = 0) or written (1). A hint: no address is wrong."""
    if not isinstance(write, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        signature = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
        hint = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), signature)
        near, data = i32(3), i32(1)
        builder.call(hint, [builder.inttoptr(args[0], pointer), i32(write.literal_value), near, data])
        return context.get_dummy_value()

    return types.void(types.intp, write), codegen


@njit(inner=True)
def add_stream(streams, n, array, start, stop, blocks, shares, written):
    """Put array[start:stop], 1-d, at place n, to be prefetched in ``blocks`` blocks of ``shares`` shares. Returns n + 1."""
    size = max(0, stop - start) * array.itemsize
    block = (size + blocks - 1) // blocks
    streams[n, 0] = address(array) + start * array.itemsize
    streams[n, 1] = (block + shares * LINE - 1) // (shares * LINE) * LINE
    streams[n, 2] = block
    streams[n, 3] = written
    return n + 1


@njit(inner=True)
def share_lines(streams, n, share):
    """The cache lines of one share of this block of stream n, by their addresses."""
    start = streams[n, 0] + share * streams[n, 1]
    return range(start, start + streams[n, 1], LINE)


@njit(inner=True)
def prefetch_share(streams, share):
    """Prefetch one share of this block of every stream."""
    for n in range(streams.shape[0]):
        if streams[n, 3]:
            for line in share_lines(streams, n, share):
                prefetch_line(line, 1)
        else:
            for line in share_lines(streams, n, share):
                prefetch_line(line, 0)


@njit(inner=True)
def next_block(streams):
    """Go on to the next block of every stream."""
    for n in range(streams.shape[0]):
        streams[n, 0] += streams[n, 2]
