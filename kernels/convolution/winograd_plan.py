"""Plans of Winograd convolutions: the memory layout, and where the algorithm is used. The kernels are in ``winograd.py``.

The 4×4 output tiles of a work item (images, or a band of rows of one) are processed in blocks: their inputs are transformed
into V, 36 products are computed, and the results are transformed back, all while the block is in cache.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..runtime import target
from .prefetch import LINE
from .winograd_table import GAINS, LEAST_GAIN, LEAST_PRODUCTS, LEAST_TILES
from .winograd_transforms import PLANES, TILE
from .work_items import Layout, slices_of

WIDE_BYTES = 1 << 20  # of transformed weights, about the size of the L2 cache
HUGE_BYTES = 16 << 20  # of the total of a weight gradient
BLOCK_BYTES = 64 << 10  # of one block's V and M
BLOCK_TILES = 16, 96  # in a block, at least and at most: each block reads all weights
WIDE_BLOCK_TILES = 24  # in a block, at least, of a layer whose weights are larger than the L2 cache
WEIGHT_TILES = 32  # in a block of a weight gradient: each block reads and writes the total
WIDE_WEIGHT_TILES, HUGE_WEIGHT_TILES = 64, 128  # the same, of a large batch, where the total is larger than the caches
FEW_ITEMS = 8  # if there are fewer images, each is divided into bands, for so many items
BAND_COST = 2  # of such a band, besides its tiles, in tiles
ITEM_TILES = 64  # in an item, if the batch has that many
WIDE_ITEM_TILES = 12  # in an item of such a layer; of a batch that has LARGE_BATCH_TILES, WIDE_BLOCK_TILES
LARGE_BATCH_TILES, HUGE_BATCH_TILES = 768, 2048
PACKED_BYTES = 256 << 10  # of a packed band of an image, at most
TOTALS_BYTES = 8 << 20  # of all partial sums of a weight gradient, at most
CHUNK_TILES = 128  # in a chunk, at least: each chunk has a total to clear and to add
FEW_PARTS, PARTS = 4, 8  # chunks of a large batch, which divide evenly among threads, whatever their totals take
LARGE_CHUNK_TILES = 512  # in such a chunk, at least: clearing and adding a total takes as long as 60 tiles
SPLIT_CHUNK_TILES = 256  # the same in place of splits, each of which transforms the gradients again
SPLIT_ROWS = 64  # channels in a split of a weight gradient, at least


class Block(NamedTuple):
    """Memory layout of one block of tiles, in elements. A plane is one of the 36 matrices of V, U, M, Z or the total."""

    channels: int  # summed over in the forward pass; rows of the weight gradient
    filters: int
    tiles: int  # in the block, at most
    wide: int  # 1: the register tile is two vectors wide
    rows: int  # of the register tile
    width: int  # columns of the register tile
    v_vectors: int  # vectors of a pixel's channels
    v_tile: int  # V: from one tile to the next
    v_vector: int  # V: from one vector of channels to the next
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
        """The block as an array of one record with the same field names."""
        return np.array([tuple(self)], [(name, np.int64) for name in self._fields])

    def sizes(self, itemsize):
        """Elements of V, of M or Z (with room for one tile's outputs behind the planes), and of U."""
        room = TILE * TILE * target.VECTOR_BYTES // itemsize
        return PLANES * self.v_plane, PLANES * self.m_plane + room, PLANES * self.u_plane


def whole(n):
    """n rows or columns, rounded up to whole tiles."""
    return _up(n, TILE)


def _up(n, multiple):
    return -(-n // multiple) * multiple


def _plane(elements, itemsize):
    """Round up to an odd number of cache lines: the 36 planes that a transform writes to then use 36 sets of the L1 cache."""
    line = LINE // itemsize
    return (_up(elements, line) // line | 1) * line


def _register_tile(channels, filters, itemsize):
    """wide, rows and columns of the register tile; lanes; vectors of channels; panels of filters."""
    lanes, width = target.VECTOR_BYTES // itemsize, target.tile_columns(filters, itemsize)
    wide = width > lanes
    tile = int(wide), target.WIDE_ROWS if wide else target.NARROW_ROWS, width
    return *tile, lanes, -(-channels // lanes), -(-filters // width)


def _wide(channels, filters, itemsize):
    """Whether the transformed weights are larger than the L2 cache."""
    return PLANES * channels * filters * itemsize > WIDE_BYTES


def _count_tiles(images, size, padding):
    """The tiles of a batch."""
    rows, columns = (n + 2 * p - 2 for n, p in zip(size, padding))
    return images * (whole(rows) // TILE) * (whole(columns) // TILE)


def _weight_tiles(batch_tiles, channels, filters, itemsize):
    """The tiles in a block of a weight gradient."""
    total = PLANES * channels * filters * itemsize
    if total > HUGE_BYTES and batch_tiles >= HUGE_BATCH_TILES:
        return HUGE_WEIGHT_TILES
    return WIDE_WEIGHT_TILES if total > WIDE_BYTES and batch_tiles >= LARGE_BATCH_TILES else WEIGHT_TILES


@lru_cache(maxsize=512)
def block_for(channels, filters, itemsize):
    """The Block of a forward pass, or of an input gradient (channels and filters exchanged). V is [plane][tile][channel]."""
    wide, rows, width, lanes, v_vectors, m_panels = _register_tile(channels, filters, itemsize)
    v_tile, m_tile = v_vectors * lanes, m_panels * width
    fewest, most = BLOCK_TILES
    if _wide(channels, filters, itemsize):
        fewest = WIDE_BLOCK_TILES
    tiles = max(rows, max(fewest, min(most, BLOCK_BYTES // (PLANES * itemsize * (v_tile + m_tile)))) // rows * rows)
    return Block(
        channels, filters, tiles, wide, rows, width,
        v_vectors, v_tile, lanes, _plane(tiles * v_tile, itemsize),
        m_panels, m_tile, width, _plane(tiles * m_tile, itemsize),
        channels * width, _plane(m_panels * channels * width, itemsize), 0, 0,
    )  # fmt: skip


@lru_cache(maxsize=512)
def weight_block_for(channels, filters, itemsize, tiles=WEIGHT_TILES):
    """The Block of a weight gradient. V is [plane][vector of channels][tile][lane], Z is [plane][panel][tile][column]."""
    wide, rows, width, lanes, v_vectors, m_panels = _register_tile(channels, filters, itemsize)
    total_row = m_panels * width
    return Block(
        channels, filters, tiles, wide, rows, width,
        v_vectors, lanes, tiles * lanes, _plane(v_vectors * tiles * lanes, itemsize),
        m_panels, width, tiles * width, _plane(m_panels * tiles * width, itemsize),
        0, 0, total_row, _plane(_up(channels, rows) * total_row, itemsize),
    )  # fmt: skip


@lru_cache(maxsize=512)
def weight_tables_for(block, itemsize):
    """(3, rows) int64, bytes: where each channel begins in a plane of V and of the total, and the run's offset, 0.

    Rows that complete the last register tile read the last channel again; their results are not used.
    """
    row = np.arange(_up(block.channels, block.rows))
    channel = np.minimum(row, block.channels - 1)
    v_row = channel // block.v_tile * block.v_vector + channel % block.v_tile
    return np.stack([v_row, row * block.total_row, row * 0]).astype(np.int64) * itemsize


def _even_band(images, tile_rows, tiles_across):
    """Rows of tiles in a band of few images, so that the bands divide evenly among threads.

    Least is what the busiest of two threads has to compute, and of four: they compute whole register tiles, and each item
    takes some time besides.
    """

    def busiest(threads, rows):
        tiles = [min(rows, tile_rows - r) * tiles_across for r in range(0, tile_rows, rows)] * images
        loads = [0] * threads
        for n in tiles:
            loads[loads.index(min(loads))] += _up(n, target.WIDE_ROWS) + BAND_COST
        return max(loads)

    return min(range(1, tile_rows + 1), key=lambda rows: (busiest(2, rows) + 2 * busiest(4, rows), rows))


@lru_cache(maxsize=512)
def item_layout(images, size, padding, channels, filters, groups, itemsize, weight):
    """The Layout for images of ``size`` (H, W) and ``channels``, packed with a border of ``padding``.

    Bands have a multiple of four rows. Packed images have two rows and columns more than their outputs, rounded up to whole
    tiles. weight: whether it is for a weight gradient.
    """
    rows, columns = (n + 2 * p - 2 for n, p in zip(size, padding))
    width, tiles_across = whole(columns) + 2, whole(columns) // TILE
    row_bytes = width * channels * itemsize
    band = whole(rows)
    if (band + 2) * row_bytes > PACKED_BYTES:
        least = TILE * -(-ITEM_TILES // tiles_across)
        band = min(band, max(least, (PACKED_BYTES // row_bytes - 2) // TILE * TILE, TILE))
        band = whole(-(-rows // -(-rows // band)))
    if images < FEW_ITEMS and not weight:
        band = min(band, _even_band(max(1, images), whole(rows) // TILE, tiles_across) * TILE)
    bands = -(-rows // band)
    group = 1
    if bands == 1:
        tiles = band // TILE * tiles_across
        wide = _wide(channels // groups, filters // groups, itemsize)
        of_item = ITEM_TILES
        if weight:
            of_item = max(of_item, _weight_tiles(images * tiles, channels // groups, filters // groups, itemsize))
        elif wide:
            of_item = WIDE_BLOCK_TILES if images * tiles >= LARGE_BATCH_TILES else WIDE_ITEM_TILES
        group = -(-of_item // tiles)
        if not wide and not weight:  # enough items for any number of threads
            group = min(group, -(-images // 8))
        group = -(-images // max(1, -(-images // max(1, group))))
    return Layout(
        direct=0, images=max(1, group), band=band, bands=bands, items=-(-images // max(1, group)) * bands,
        step=1, column_step=1, top=padding[0], left=padding[1], height=band + 2, width=width, pitch=channels,
        groups=groups, columns=filters // groups, tile=0, all_images=images, source_height=size[0], source_width=size[1],
        channels=channels, out_row=columns, out_pixels=rows * columns,
    )  # fmt: skip


@lru_cache(maxsize=512)
def weight_layout(problem, itemsize):
    """``item_layout`` with the chunks and splits of a weight gradient, independent of the number of threads."""
    (slices, whole), one = slices_of(problem), problem.group
    images, size, padding, channels = problem.images, problem.size, problem.padding, one.channels
    layout = item_layout(images, size, padding, whole.channels, whole.filters, whole.groups, itemsize, True)
    total = PLANES * weight_block_for(channels, one.filters, itemsize).total_plane * itemsize
    tiles = _count_tiles(images, size, padding)
    if problem.groups > 1:
        most = min(layout.items, TOTALS_BYTES // (total * problem.groups), tiles // CHUNK_TILES)
        return layout._replace(chunks=max(1, min(-(-16 // slices), most)), splits=1, slices=slices)
    chunks = max(1, min(16, layout.items, TOTALS_BYTES // total, tiles // CHUNK_TILES))
    splits = max(1, min(16 // chunks, channels // SPLIT_ROWS))
    large = min(PARTS, layout.items, tiles // (LARGE_CHUNK_TILES if splits == 1 else SPLIT_CHUNK_TILES))
    if chunks * splits < PARTS and large >= max(FEW_PARTS, chunks * splits):
        chunks, splits = large, 1
    return layout._replace(chunks=chunks, splits=splits)


class WinogradPlan(NamedTuple):
    """Plan of a forward pass or input gradient: everything that does not depend on the arrays."""

    layout: Layout
    tables: tuple  # the records of layout and block
    filters: int  # elements of the transformed filters of all groups
    scratch: tuple  # elements of one thread's buffers: a packed item, V, M, nine taps of filters at an edge


@lru_cache(maxsize=512)
def winograd_plan(problem, itemsize):
    """The WinogradPlan of the forward pass of a Problem."""
    (slices, whole), one = slices_of(problem), problem.group
    block = block_for(one.channels, one.filters, itemsize)
    p = problem.images, problem.size, problem.padding
    layout = item_layout(*p, whole.channels, whole.filters, whole.groups, itemsize, False)._replace(slices=slices)
    v, m, u = block.sizes(itemsize)
    lanes, line = target.VECTOR_BYTES // itemsize, LINE // itemsize
    scratch = layout.packed_size + lanes, v, m, 9 * line * lanes
    return WinogradPlan(layout, (layout.record(), block.record()), problem.groups * u, scratch)


class WinogradWeightPlan(NamedTuple):
    """Plan of a weight gradient."""

    tables: tuple  # the records of layout and block, and the offsets of ``weight_tables_for``
    totals: tuple  # the shape of the partial sums: groups, chunks, elements
    scratch: tuple  # elements of one thread's buffers: a packed item, its dy, V, Z, nine vectors at an edge


@lru_cache(maxsize=512)
def winograd_weight_plan(problem, itemsize, packed_dy):
    """The WinogradWeightPlan. packed_dy: dy has a prologue, and its values are computed for one work item at a time."""
    one, batch_tiles = problem.group, _count_tiles(problem.images, problem.size, problem.padding)
    tiles = _weight_tiles(batch_tiles, one.channels, one.filters, itemsize)
    block = weight_block_for(one.channels, one.filters, itemsize, tiles)
    layout = weight_layout(problem, itemsize)
    v, z, _ = block.sizes(itemsize)
    lanes = target.VECTOR_BYTES // itemsize
    read = layout.images * layout.band * layout.out_row * layout.groups * layout.columns if packed_dy else 0
    tables = layout.record(), block.record(), weight_tables_for(block, itemsize)
    scratch = layout.packed_size + lanes, read, v, z, 9 * lanes
    return WinogradWeightPlan(tables, (problem.groups, layout.chunks, PLANES * block.total_plane), scratch)


def applicable(problem):
    """Whether the algorithm can compute a ``Problem``: 3×3, stride 1, dilation 1, padding of at most 2."""
    plain = problem.kernel == (3, 3) and problem.stride == (1, 1) and problem.dilation == (1, 1)
    return plain and max(problem.padding) <= 2 and min(problem.out_size) > 0


@lru_cache(maxsize=512)
def least_side(use, channels, kind=target.KIND):
    """The smallest map side from which on all measured sides gain, for the largest measured channels ≤ channels; or None."""
    by_channels = GAINS.get(kind, {}).get(use, {})
    known = [c for c in by_channels if c <= channels]
    least = None
    for side, gain in sorted(by_channels[max(known)].items(), reverse=True) if known else ():
        if gain < LEAST_GAIN:
            break
        least = side
    return least


def least_tiles(use, channels, filters):
    """The fewest tiles in a batch for which the Winograd algorithm is worth its fixed cost per call."""
    return max(LEAST_TILES[use], -(-LEAST_PRODUCTS // max(1, channels * filters)))


def faster(problem, use, kind=target.KIND):
    """Whether the Winograd algorithm is faster, by the committed table. use: "forward", "input_grad" or "weight_grad".

    Depends only on the CPU target and the shapes: the smaller of a group's channels and filters, the smaller side of the map,
    and the number of tiles.
    """
    if not applicable(problem):
        return False
    one = problem.group
    least = least_side(use, min(one.channels, one.filters), kind)
    height, width = problem.size if use == "input_grad" else problem.out_size
    tiles = problem.images * (whole(height) // TILE) * (whole(width) // TILE)
    enough = tiles >= least_tiles(use, problem.channels, one.filters)
    return least is not None and min(height, width) >= least and enough
