"""Where everything stands: address tables that turn convolutions into products of a few rows by a few vectors.

A convolution is a matrix product whose left matrix, the im2col matrix, is never stored. Its rows are positions of a grid
(q, r) and its columns are taps × channels; element (position; tap, channel) is read at

    start of the packed image  +  rows_at[position]  +  runs_at[tap]  +  channel

All three uses have this form, for any stride and dilation:

forward         one phase. Position = output pixel, tap (kh, kw) at (kh·dilation, kw·dilation).
input gradient  stride² phases. dx[s·q + p] = Σ dy[q + (p + padding − kh·dilation)/s] · w[kh] over the taps kh for which that
                is a whole number: each phase p is a stride-1 convolution of dy with its own taps, and no zero is multiplied.
weight gradient rows are (kh, kw, channel) and the sum runs over output pixels (see ``WeightPlan``).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import target
from .layout import out_size

PACKED_BYTES = 128 << 10  # of a packed band of an image: it shares the L2 cache with the weights
FEW_POSITIONS = 256  # small images are taken several at a time, so that tiles are full
WEIGHT_POSITIONS = 192  # a weight gradient's tile walks over a cache line of x and of dy for each position
DENSE_BYTES = 128  # from one pixel of dy to the next; beyond, packing pays (measured)


class Geometry(NamedTuple):
    """One convolution. Pairs are (height, width)."""

    images: int
    size: tuple
    channels: int
    filters: int
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    @property
    def out_size(self):
        return out_size(self.size, self.kernel, self.stride, self.padding, self.dilation)


class Layout(NamedTuple):
    """How a convolution is cut into items of work, and how the images of an item are packed. All int.

    An item is a group of whole images, or a band of grid rows of one image. It is copied with its zero border into a
    buffer that stays in cache. Kernels get the layout as a record array (``Layout.record``): as one argument, where
    a tuple would be unpacked into twenty, at ten times the compile time.
    """

    direct: int  # 1: no border is needed, the image is read where it is
    images: int  # images in one item
    band: int  # grid rows in one item
    bands: int  # items that one image, or group of images, is cut into
    items: int
    step: int  # image rows for one grid row
    column_step: int  # image columns for one grid column
    top: int  # zero rows above the image
    left: int  # zero columns before it
    height: int  # rows of the packed band of one image
    width: int  # its columns
    pitch: int  # elements from one pixel to the next: the channels, or a few more
    groups: int
    columns: int  # of the product: output channels of one group
    tile: int  # columns of the register tile
    all_images: int
    source_height: int
    source_width: int
    channels: int  # of the source: all groups'
    out_row: int = 0  # output pixels from one grid row to the next
    out_pixels: int = 0  # output pixels of one image
    chunks: int = 0  # weight gradient: parts that the sum over items is cut into, whatever the number of threads
    splits: int = 0  # weight gradient: parts that its rows are cut into, where a part of the sum would be large
    dense: int = 0  # weight gradient: 1 when pixels of dy are read as they stand in the image, not in blocks of columns

    def record(self):
        """The same as an array of one record, with the fields' names."""
        return np.array([tuple(self)], [(name, np.int64) for name in self._fields])

    @property
    def packed_size(self):
        """Elements of the buffer that an item is packed into."""
        return 0 if self.direct else self.images * self.height * self.width * self.pitch


class ConvPlan(NamedTuple):
    """Forward pass or input gradient. Tables are int64; their rows are phases, their offsets bytes."""

    layout: Layout
    record: np.ndarray
    phases: np.ndarray  # (phases, 5): grid rows, grid columns, runs, elements in a run, where its panels begin
    rows_at: np.ndarray  # (phases, positions of an item): where a position's row of the im2col matrix starts
    out_at: np.ndarray  # (phases, positions of an item): where its output pixel stands, from the item's first pixel
    runs_at: np.ndarray  # (phases, most runs): where each run of neighbouring taps starts
    taps: tuple  # a phase's (taps, 2) array of (kh, kw), in the order in which its weights are packed
    panels: int  # elements of all packed weights


class WeightPlan(NamedTuple):
    layout: Layout
    record: np.ndarray
    rows_at: np.ndarray  # (KH·KW·I,) int64, bytes: where row (kh, kw, i) of the first group starts in the packed image
    runs_at: np.ndarray  # (grid rows of an item,) int64, bytes: where each grid row starts
    panel: int  # elements of an item's dy, packed; 0 if dy is read where it stands


def _layout(g, source, channels, columns, pitch, packed, grid, step, origin, reach, itemsize, most=None):
    """Pack ``grid`` positions whose taps reach from ``origin`` (≤ 0: above and left of the image) over ``reach`` pixels.

    pitch: elements from one packed pixel to the next. packed: pack in any case. most: positions in an item, at most.
    """
    needed = [(n - 1) * s + r for n, s, r in zip(grid, step, reach)]
    direct = not packed and pitch == channels and origin == (0, 0) and all(n <= have for n, have in zip(needed, source))
    width = source[1] if direct else needed[1]
    row_bytes = width * pitch * itemsize
    band = grid[0]
    if needed[0] * row_bytes > PACKED_BYTES:
        band = max(1, min(band, (PACKED_BYTES // row_bytes - reach[0]) // step[0] + 1))
    if most is not None:
        band = max(1, min(band, most // grid[1]))
    if band < grid[0]:
        band = -(-grid[0] // -(-grid[0] // band))  # bands of nearly the same height
    bands = -(-grid[0] // band)
    images = 1
    if bands == 1:
        few = (most or FEW_POSITIONS) // (grid[0] * grid[1])
        fits = g.images if direct else PACKED_BYTES // (needed[0] * row_bytes)
        images = max(1, min(few, fits, -(-g.images // 8)))
    height = source[0] if direct else (band - 1) * step[0] + reach[0]
    items = -(-g.images // images) * bands
    item = int(direct), images, band, bands, items
    packing = *step, -origin[0], -origin[1], height, width, pitch
    tile = target.tile_columns(columns, itemsize)
    return Layout(*item, *packing, g.groups, columns, tile, g.images, *source, channels)


def _positions(layout, columns, row_step, column_step, image_step):
    """Σ image·image_step + row·row_step + column·column_step over the positions of one item, in order."""
    image, row = np.arange(layout.images), np.arange(layout.band)
    column = np.arange(columns) * column_step
    return (image[:, None, None] * image_step + row[:, None] * row_step + column).astype(np.int64).ravel()


def _runs(offsets, taps, channels):
    """Taps in the order of their offsets, neighbours joined into runs where all runs come out equally long."""
    order = np.argsort(offsets, kind="stable")
    offsets, taps = offsets[order], taps[order]
    joints = np.flatnonzero(np.diff(offsets) != channels) + 1
    lengths = np.diff([0, *joints, len(offsets)])
    if len(set(lengths)) == 1:
        return offsets[[0, *joints]], int(lengths[0]) * channels, taps
    return offsets, channels, taps


class _Phase(NamedTuple):
    grid: tuple
    rows_at: np.ndarray
    out_at: np.ndarray
    runs_at: np.ndarray
    run: int
    taps: np.ndarray


def _phase(g, layout, grid, column_step, channels, out_at, taps, tap_rows, tap_columns):
    """Tap t of ``taps`` reads the packed image at row tap_rows[t] and column tap_columns[t] from the position."""
    row = layout.step * layout.width * channels
    rows_at = _positions(layout, grid[1], row, column_step * channels, layout.height * layout.width * channels)
    taps = np.array(taps, np.int64).reshape(-1, 2)
    if not len(taps):  # no tap reaches this phase (a 1×1 kernel with stride 2): its gradient is zero
        return _Phase(grid, rows_at, out_at, np.zeros(0, np.int64), 1, taps)
    offsets = (np.array(tap_rows) * layout.width + np.array(tap_columns)) * channels
    if g.groups > 1:  # a group's channels are a stretch of each pixel's: its taps are no neighbours
        return _Phase(grid, rows_at, out_at, offsets, channels // g.groups, taps)
    return _Phase(grid, rows_at, out_at, *_runs(offsets, taps, channels))


def _plan(layout, phases, ins, out_channels, itemsize):
    """The ConvPlan of some phases, whose products sum over ``ins`` channels of each group."""

    def stack(rows, scale):
        table = np.zeros((len(rows), max([1, *map(len, rows)])), np.int64)
        for row, values in zip(table, rows):
            row[: len(values)] = values
        return table * scale

    tiles = layout.groups * -(-layout.columns // layout.tile) * layout.tile
    ends = np.cumsum([tiles * ins * len(p.taps) for p in phases])
    table = [(*p.grid, len(p.runs_at), p.run, at) for p, at in zip(phases, [0, *ends[:-1]])]
    return ConvPlan(
        layout,
        layout.record(),
        np.array(table, np.int64),
        stack([p.rows_at for p in phases], itemsize),
        stack([p.out_at for p in phases], out_channels * itemsize),
        stack([p.runs_at for p in phases], itemsize),
        tuple(p.taps for p in phases),
        int(ends[-1]),
    )


@lru_cache(maxsize=512)
def forward_plan(g, itemsize, packed=False):
    """Tables for y = x ∗ w. packed: x is not read where it stands, even where no border is needed."""
    reach = tuple(d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel))
    origin = tuple(-p for p in g.padding)
    grid = g.out_size
    columns = g.filters // g.groups
    layout = _layout(g, g.size, g.channels, columns, g.channels, packed, grid, g.stride, origin, reach, itemsize)
    layout = layout._replace(out_row=grid[1], out_pixels=grid[0] * grid[1])
    out_at = _positions(layout, grid[1], grid[1], 1, grid[0] * grid[1])
    taps = [(kh, kw) for kh in range(g.kernel[0]) for kw in range(g.kernel[1])]
    tap_rows, tap_columns = [kh * g.dilation[0] for kh, _ in taps], [kw * g.dilation[1] for _, kw in taps]
    phase = _phase(g, layout, grid, g.stride[1], g.channels, out_at, taps, tap_rows, tap_columns)
    return _plan(layout, [phase], g.channels // g.groups, g.filters, itemsize)


@lru_cache(maxsize=512)
def input_grad_plan(g, itemsize, packed=False):
    """Tables for dx = dy ∗ᵀ w, one phase for each remainder of the input position by the stride."""

    def reaching(axis, p):
        """[(k, shift)]: the taps that reach phase p, and which dy they read, counted from the grid position."""
        s, pad, d = g.stride[axis], g.padding[axis], g.dilation[axis]
        return [(k, (p + pad - k * d) // s) for k in range(g.kernel[axis]) if (p + pad - k * d) % s == 0]

    axis_phases = [range(min(s, n)) for s, n in zip(g.stride, g.size)]
    shifts = [{k: shift for p in axis_phases[axis] for k, shift in reaching(axis, p)} for axis in (0, 1)]
    low = tuple(min([0, *s.values()]) for s in shifts)
    reach = tuple(max([0, *s.values()]) - lowest + 1 for s, lowest in zip(shifts, low))
    grid = tuple(-(-n // s) for n, s in zip(g.size, g.stride))
    height, width = g.size
    columns = g.channels // g.groups
    layout = _layout(g, g.out_size, g.filters, columns, g.filters, packed, grid, (1, 1), low, reach, itemsize)
    layout = layout._replace(out_row=g.stride[0] * width, out_pixels=height * width)
    phases = []
    for ph in axis_phases[0]:
        for pw in axis_phases[1]:
            phase_grid = (-(-(height - ph) // g.stride[0]), -(-(width - pw) // g.stride[1]))
            whole = layout._replace(band=phase_grid[0]) if layout.bands == 1 else layout
            out_at = _positions(whole, phase_grid[1], layout.out_row, g.stride[1], height * width) + ph * width + pw
            taps = [(kh, kw) for kh, _ in reaching(0, ph) for kw, _ in reaching(1, pw)]
            tap_rows = [shifts[0][kh] - low[0] for kh, _ in taps]
            tap_columns = [shifts[1][kw] - low[1] for _, kw in taps]
            phases.append(_phase(g, whole, phase_grid, 1, g.filters, out_at, taps, tap_rows, tap_columns))
    return _plan(layout, phases, g.filters // g.groups, g.channels, itemsize)


@lru_cache(maxsize=512)
def weight_grad_plan(g, itemsize, packed=False, packed_dy=False):
    """Tables for dw[(kh, kw, i), :] = Σ over output pixels of x[pixel·stride + (kh, kw)·dilation, i] · dy[pixel, :]."""
    reach = tuple(d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel))
    origin = tuple(-p for p in g.padding)
    # Pixels a multiple of 256 bytes apart share a few sets of the L1 cache, and the tile walks over them one by one.
    spread = g.channels * itemsize % 256 == 0
    pitch = g.channels + (64 // itemsize if spread else 0)
    columns = g.filters // g.groups
    layout = _layout(
        g, g.size, g.channels, columns, pitch, packed, g.out_size, g.stride, origin, reach, itemsize, WEIGHT_POSITIONS
    )
    kh, kw, i = np.ogrid[: g.kernel[0], : g.kernel[1], : g.channels // g.groups]
    rows_at = ((kh * g.dilation[0] * layout.width + kw * g.dilation[1]) * pitch + i).astype(np.int64).ravel()
    runs_at = _positions(layout, 1, layout.step * layout.width * pitch, 0, layout.height * layout.width * pitch)
    chunks = max(1, min(16, layout.items, (32 << 20) // (rows_at.size * g.filters * itemsize)))
    splits = max(1, min(16 // chunks, rows_at.size // target.WIDE_ROWS))
    # dy is read as it stands if its columns are whole tiles, and its pixels no such distance apart either.
    dense = columns % layout.tile == 0 and g.filters * itemsize <= DENSE_BYTES
    layout = layout._replace(chunks=chunks, splits=splits, dense=int(dense))
    pixels = layout.images * layout.band * g.out_size[1]
    panel = pixels * (g.filters if dense else -(-columns // layout.tile) * layout.tile)
    panel = 0 if dense and not packed_dy else panel
    return WeightPlan(layout, layout.record(), rows_at * itemsize, runs_at * itemsize, panel)
