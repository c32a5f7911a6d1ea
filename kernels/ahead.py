"""Memory that will be needed soon, asked for while something else is computed.

A convolution reads an item, computes on it for long, and writes it. What it reads and writes next is not in cache, and waiting
for it took a quarter of the time of the layers with few channels. So each of the products of a block (``winograd.py``) asks for
a share of it: the outputs of the block, the next item's inputs, and what the epilogue will read. It changes no value.

Streams are an int64 array (n, 3): the address, the bytes of a share, the bytes of a block. None of them is a promise: what is
asked for beyond the end of an array is not touched.
"""

from .cache import njit
from .products import address
from .tile import prefetch

LINE = 64  # bytes of a cache line
STREAMS = 6


@njit(inner=True)
def add_stream(streams, n, array, start, stop, blocks, shares):
    """Put array[start:stop], 1-d, at place n: to be asked for in so many blocks of so many shares. Returns n + 1."""
    size = max(0, stop - start) * array.itemsize
    block = (size + blocks - 1) // blocks
    streams[n, 0] = address(array) + start * array.itemsize
    streams[n, 1] = (block + shares * LINE - 1) // (shares * LINE) * LINE
    streams[n, 2] = block
    return n + 1


@njit(inner=True)
def ask(streams, n, share):
    """Ask for one share of a block: of the first stream to write it, of those up to the n-th to read it."""
    start = streams[0, 0] + share * streams[0, 1]
    for line in range(start, start + streams[0, 1], LINE):
        prefetch(line, 1)
    for i in range(1, n):
        start = streams[i, 0] + share * streams[i, 1]
        for line in range(start, start + streams[i, 1], LINE):
            prefetch(line, 0)


@njit(inner=True)
def next_block(streams, n):
    for i in range(n):
        streams[i, 0] += streams[i, 2]
