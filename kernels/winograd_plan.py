"""Where everything stands in a Winograd convolution, and where it is used. The kernels are in ``winograd.py``.

The 2×2 output tiles of an item (images, or a band of rows of one) are taken in blocks: their inputs are transformed into V,
16 products are made, and the results are transformed back, while all of it is in cache.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import target
from .conv_plan import Layout

BLOCK_BYTES = 128 << 10  # of V and M (or Z) of one block
FEWEST_TILES = 24  # in a block: the 16 matrices of weights are read once for each
MOST_TILES = 96
ITEM_TILES = 96  # in an item, where the batch has as many
PACKED_BYTES = 256 << 10
TOTALS_BYTES = 32 << 20  # of all partial sums of a weight gradient


class Block(NamedTuple):
    """Memory of one block of tiles, in elements. A plane is one of the 16 matrices of V, U, M, Z or of the total."""

    channels: int  # summed over in the forward pass; the rows of the weight gradient
    filters: int
    tiles: int
    wide: int  # 1: the register tile is two vectors wide
    width: int  # its columns
    v_vectors: int  # vectors that hold a pixel's channels
    v_tile: int  # V: from one tile to the next
    v_vector: int  # from one vector of channels to the next
    v_plane: int
    m_panels: int  # M or Z: panels of ``width`` filters
    m_tile: int
    m_panel: int
    m_plane: int
    u_panel: int  # U: [plane][panel][channel][width]
    u_plane: int
    total_row: int  # total: [plane][channel][filter]
    total_plane: int

    def record(self):
        """The same as an array of one record, with the fields' names."""
        return np.array([tuple(self)], [(name, np.int64) for name in self._fields])

    def sizes(self, itemsize):
        """Elements of V, of M or Z, and of U, with what stands behind their planes: room for vectors that stick out."""
        lanes = target.VECTOR_BYTES // itemsize
        return 16 * self.v_plane, 16 * self.m_plane + 4 * lanes, 16 * self.u_plane + 9 * lanes * lanes


def _up(n, multiple):
    return -(-n // multiple) * multiple


def _plane(elements, itemsize):
    """Whole cache lines, an odd number of them: the 16 planes that a transform writes to fall on 16 sets of the L1 cache."""
    line = 64 // itemsize
    return (_up(elements, line) // line | 1) * line


def _block(channels, filters, itemsize, tiles_step):
    lanes = target.VECTOR_BYTES // itemsize
    width = target.tile_columns(filters, itemsize)
    step = tiles_step or (target.WIDE_ROWS if width > lanes else target.NARROW_ROWS)
    v_vectors, m_panels = -(-channels // lanes), -(-filters // width)
    tiles = BLOCK_BYTES // (16 * itemsize * (v_vectors * lanes + m_panels * width))
    tiles = _up(max(FEWEST_TILES, min(MOST_TILES, tiles)) - step + 1, step)
    return lanes, width, v_vectors, m_panels, tiles


@lru_cache(maxsize=512)
def block_for(channels, filters, itemsize):
    """Forward pass or input gradient (whose channels are the filters, and the other way round). V is [plane][tile][channel]."""
    lanes, width, v_vectors, m_panels, tiles = _block(channels, filters, itemsize, 0)
    v_tile, m_tile = v_vectors * lanes, m_panels * width
    return Block(
        channels, filters, tiles, int(width > lanes), width,
        v_vectors, v_tile, lanes, _plane(tiles * v_tile, itemsize),
        m_panels, m_tile, width, _plane(tiles * m_tile, itemsize),
        channels * width, _plane(m_panels * channels * width, itemsize), 0, 0,
    )  # fmt: skip


@lru_cache(maxsize=512)
def weight_block_for(channels, filters, itemsize):
    """Weight gradient. The sum runs over tiles: V is [plane][vector of channels][tile][lane], Z [plane][panel][tile][column]."""
    lanes, width, v_vectors, m_panels, tiles = _block(channels, filters, itemsize, 8)
    rows = _up(channels, target.WIDE_ROWS if width > lanes else target.NARROW_ROWS)
    total_row = m_panels * width
    return Block(
        channels, filters, tiles, int(width > lanes), width,
        v_vectors, lanes, tiles * lanes, _plane(v_vectors * tiles * lanes, itemsize),
        m_panels, width, tiles * width, _plane(m_panels * tiles * width, itemsize),
        0, 0, total_row, _plane(rows * total_row, itemsize),
    )  # fmt: skip


@lru_cache(maxsize=512)
def tables_for(block, itemsize):
    """(3, tiles) int64, bytes: where each tile's row of V and of M begins in its plane, and the run's start, 0."""
    tile = np.arange(block.tiles)
    return np.stack([tile * block.v_tile, tile * block.m_tile, tile * 0]).astype(np.int64) * itemsize


@lru_cache(maxsize=512)
def weight_tables_for(block, itemsize):
    """(3, rows) int64, bytes: where each channel begins in its plane of V and of the total, and the run's start, 0.

    Rows that fill up the last register tile read the last channel again and are never looked at.
    """
    row = np.arange(block.total_plane // block.total_row)
    channel = np.minimum(row, block.channels - 1)
    v_row = channel // block.v_tile * block.v_vector + channel % block.v_tile
    return np.stack([v_row, row * block.total_row, row * 0]).astype(np.int64) * itemsize


def even(n):
    return n + n % 2


@lru_cache(maxsize=512)
def item_layout(images, rows, columns, padding, channels, itemsize):
    """The ``conv_plan.Layout`` of items that make ``rows`` × ``columns`` outputs an image, with a border of ``padding``.

    Bands have an even number of rows. Packed images are two rows and columns larger than their outputs, made even.
    """
    width, tiles_across = even(columns) + 2, even(columns) // 2
    row_bytes = width * channels * itemsize
    band = even(rows)
    if (band + 2) * row_bytes > PACKED_BYTES:
        least = 2 * -(-ITEM_TILES // tiles_across)
        band = min(band, max(least, (PACKED_BYTES // row_bytes - 2) // 2 * 2, 2))
        band = even(-(-rows // -(-rows // band)))
    bands = -(-rows // band)
    group = 1
    if bands == 1:
        few = -(-ITEM_TILES // (band // 2 * tiles_across))
        group = max(1, min(few, -(-images // 8)))
    items = -(-images // group) * bands
    height = band + 2
    return Layout(0, group, band, bands, items, 1, 1, *padding, height, width, channels, 1, 0, 0, columns, rows * columns)


def chunks_for(items, block, itemsize):
    """(chunks, splits): parts of the sum over items and parts of its rows, whatever the number of threads."""
    chunks = max(1, min(16, items, TOTALS_BYTES // (16 * block.total_plane * itemsize)))
    step = target.WIDE_ROWS if block.wide else target.NARROW_ROWS
    return chunks, max(1, min(16 // chunks, block.channels // (2 * step)))
