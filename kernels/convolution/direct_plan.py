"""Plans of direct convolutions: indirection tables that turn them into products of a few rows by a few vectors.

A convolution is a matrix product whose left matrix, the im2col matrix, is never stored. Its rows are positions of a grid
(q, r) and its columns are taps × channels; element (position; tap, channel) is read at

    start of the packed image  +  row_offsets[position]  +  run_offsets[tap]  +  channel

This is the indirect convolution of Dukhan (2019), with offsets instead of pointers.

The forward pass and both gradients have this form, for any stride and dilation:

forward         one phase. Position = output pixel, tap (kh, kw) at (kh·dilation, kw·dilation).
input gradient  stride² phases. dx[s·q + p] = Σ dy[q + (p + padding − kh·dilation)/s] · w[kh] over the taps kh for which that
                is an integer: each phase p is a stride-1 convolution of dy with its own taps, and no zero is multiplied.
weight gradient rows are (kh, kw, channel) and the sum runs over output pixels (see ``WeightPlan``).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..runtime import target
from .work_items import PACKED_BYTES, Layout, slices_of

FEW_ITEMS = 8  # if there are fewer images, each is divided into bands, for so many items
LEAST_POSITIONS = 56  # in such a band, at least: register tiles should be full
LARGE_BYTES = 1 << 20  # of weights, from which few images are divided by output channels: each item reads its own
LARGE_PACKED_BYTES = 384 << 10  # of such a packed image, at most
FEW_POSITIONS = 256  # in an item of several small images, at most: enough for full tiles
WEIGHT_POSITIONS = 192  # in an item of a weight gradient, at most: its tile reads a cache line of x and of dy for each
WEIGHT_PACKED_BYTES = 384 << 10  # of a packed band of an image, at most, there: each item adds to the whole total
PART_BYTES = 256 << 10  # of the part of a large weight gradient that is computed at a time: it stays in the L2 cache
PART_ROWS, PART_COLUMNS = 64, 128  # in such a part, at least
AHEAD_BYTES = 64 << 20  # of images and gradients, at most, to pack all of them before a large weight gradient
AHEAD_PACKED_BYTES = 256 << 20  # of all items packed ahead, at most: with large dilations they are far larger than x
MOST_OVERLAP = 4  # rows packed for a row of a band, at most; beyond, it is made as high as its taps reach, twice
DENSE_BYTES = 128  # from one pixel of dy to the next, at most, to read it in place; beyond, packing pays (measured)


class ConvPlan(NamedTuple):
    """Plan of a forward pass or input gradient. Tables are int64 and have one row per phase; offsets are in bytes."""

    layout: Layout
    record: np.ndarray
    phases: np.ndarray  # (phases, 5): grid rows, grid columns, runs, elements in a run, where its panels begin
    # (phases, …): row_offsets, where each position's row of the im2col matrix starts; out_offsets, where its output pixel is,
    # counted from the item's first pixel; run_offsets, where each run of adjacent taps starts
    indirection: np.ndarray
    taps: tuple  # for each phase, a (taps, 2) array of (kh, kw), in the order in which its weights are packed
    panels: int  # elements of all packed weights


class WeightPlan(NamedTuple):
    """Plan of a weight gradient."""

    layout: Layout
    record: np.ndarray
    # int64, bytes: row_offsets, where row (kh, kw, i) of the first group starts in the packed image; run_offsets, where each
    # grid row of an item starts
    indirection: np.ndarray
    panel: int  # elements of an item's packed dy; 0 if dy is read in place


def _layout(
    problem, source, channels, columns, pitch, packed, grid, step, origin, reach, itemsize, most=None, ahead=False,
    shared=False,
):  # fmt: skip
    """The Layout for a grid of positions, whose taps reach from ``origin`` (≤ 0: above and left of the image) over ``reach``.

    source: (H, W) of the images that are packed, and ``channels``; columns: those of the product; pitch: elements from one
    packed pixel to the next; packed: pack even if no border is needed; grid: positions of an image; step: source pixels from
    one position to the next; most: positions in an item, at most; ahead: whether all items are packed before the first is used;
    shared: the items are divided by output channels, not into bands for several threads.
    """
    needed = [(n - 1) * s + r for n, s, r in zip(grid, step, reach)]
    direct = not packed and pitch == channels and origin == (0, 0) and all(n <= have for n, have in zip(needed, source))
    width = source[1] if direct else needed[1]
    row_bytes = width * pitch * itemsize
    band, packed_bytes = grid[0], PACKED_BYTES if most is None else WEIGHT_PACKED_BYTES
    packed_bytes = LARGE_PACKED_BYTES if shared else packed_bytes
    if needed[0] * row_bytes > packed_bytes and not ahead:
        band = max(1, min(band, (packed_bytes // row_bytes - reach[0]) // step[0] + 1))
    if most is not None:
        band = max(1, min(band, most // grid[1]))
        if (band - 1) * step[0] + reach[0] > MOST_OVERLAP * band * step[0]:
            band = min(grid[0], max(1, 2 * reach[0] // step[0]))
    elif problem.images < FEW_ITEMS and not shared:  # a few images alone would leave threads without work
        least, parts = -(-LEAST_POSITIONS // max(1, grid[1])), -(-FEW_ITEMS // max(1, problem.images))
        band = max(1, min(band, max(least, -(-grid[0] // parts))))
    if band < grid[0]:
        band = -(-grid[0] // -(-grid[0] // band))  # bands of nearly equal height
    bands = -(-grid[0] // band)
    images = 1
    if bands == 1:
        few = (most or FEW_POSITIONS) // (grid[0] * grid[1])
        fits = problem.images if direct or ahead else packed_bytes // (needed[0] * row_bytes)
        images = max(1, min(few, fits, problem.images if ahead or shared else -(-problem.images // 8)))
    height = source[0] if direct else (band - 1) * step[0] + reach[0]
    items = -(-problem.images // images) * bands
    item = int(direct), images, band, bands, items
    packing = *step, -origin[0], -origin[1], height, width, pitch
    tile = target.tile_columns(columns, itemsize)
    return Layout(*item, *packing, problem.groups, columns, tile, problem.images, *source, channels)


def _positions(layout, columns, row_step, column_step, image_step):
    """image·image_step + row·row_step + column·column_step for each position of an item, in order."""
    image, row = np.arange(layout.images), np.arange(layout.band)
    column = np.arange(columns) * column_step
    return (image[:, None, None] * image_step + row[:, None] * row_step + column).astype(np.int64).ravel()


def _runs(offsets, taps, channels):
    """Sort taps by offset, and join adjacent ones into runs if all runs are equally long: run offsets, run length, taps."""
    order = np.argsort(offsets, kind="stable")
    offsets, taps = offsets[order], taps[order]
    joints = np.flatnonzero(np.diff(offsets) != channels) + 1
    lengths = np.diff([0, *joints, len(offsets)])
    if len(set(lengths)) == 1:
        return offsets[[0, *joints]], int(lengths[0]) * channels, taps
    return offsets, channels, taps


class _Phase(NamedTuple):
    grid: tuple
    row_offsets: np.ndarray
    out_offsets: np.ndarray
    run_offsets: np.ndarray
    run: int
    taps: np.ndarray


def _phase(problem, layout, grid, column_step, channels, out_offsets, taps, tap_rows, tap_columns):
    """Tap t of ``taps`` reads the packed image at row tap_rows[t] and column tap_columns[t], relative to the position."""
    row = layout.step * layout.width * channels
    row_offsets = _positions(layout, grid[1], row, column_step * channels, layout.height * layout.width * channels)
    taps = np.array(taps, np.int64).reshape(-1, 2)
    if not len(taps):  # no tap reaches this phase (a 1×1 kernel with stride 2): its gradient is zero
        return _Phase(grid, row_offsets, out_offsets, np.zeros(0, np.int64), 1, taps)
    offsets = (np.array(tap_rows) * layout.width + np.array(tap_columns)) * channels
    if problem.groups > 1:  # a group has only a part of each pixel's channels, so its taps are not adjacent
        return _Phase(grid, row_offsets, out_offsets, offsets, channels // problem.groups, taps)
    return _Phase(grid, row_offsets, out_offsets, *_runs(offsets, taps, channels))


def _plan(layout, phases, ins, out_channels, itemsize):
    """The ConvPlan of some phases whose products sum over ``ins`` channels of each group. out_channels: of all slices."""
    rows = max(len(p.row_offsets) for p in phases)
    indirection = np.zeros((len(phases), 2 * rows + max([1, *(len(p.run_offsets) for p in phases)])), np.int64)
    for table, p in zip(indirection, phases):
        table[: len(p.row_offsets)] = p.row_offsets
        table[rows : rows + len(p.out_offsets)] = p.out_offsets * out_channels
        table[2 * rows : 2 * rows + len(p.run_offsets)] = p.run_offsets
    layout = layout._replace(rows=rows)
    tiles = layout.slices * layout.groups * -(-layout.columns // layout.tile) * layout.tile
    ends = np.cumsum([tiles * ins * len(p.taps) for p in phases])
    table = [(*p.grid, len(p.run_offsets), p.run, at) for p, at in zip(phases, [0, *ends[:-1]])]
    phases_table = np.array(table, np.int64)
    return ConvPlan(
        layout, layout.record(), phases_table, indirection * itemsize, tuple(p.taps for p in phases), int(ends[-1])
    )


@lru_cache(maxsize=512)
def forward_plan(problem, itemsize, packed=False):
    """The ConvPlan of y = x ∗ w. packed: pack x even if no border is needed."""
    filters, (slices, problem) = problem.filters, slices_of(problem)
    packed = packed or slices > 1
    reach = tuple(d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel))
    origin = tuple(-p for p in problem.padding)
    grid = problem.out_size
    shared = _column_slices(problem, itemsize) if slices == 1 else 1
    columns, slices = problem.filters // problem.groups // shared, slices * shared
    layout = _layout(
        problem, problem.size, problem.channels, columns, problem.channels, packed, grid, problem.stride, origin, reach,
        itemsize, shared=shared > 1,
    )  # fmt: skip
    layout = layout._replace(out_row=grid[1], out_pixels=grid[0] * grid[1], slices=slices, shared=int(shared > 1))
    out_offsets = _positions(layout, grid[1], grid[1], 1, grid[0] * grid[1])
    taps = [(kh, kw) for kh in range(problem.kernel[0]) for kw in range(problem.kernel[1])]
    tap_rows, tap_columns = [kh * problem.dilation[0] for kh, _ in taps], [kw * problem.dilation[1] for _, kw in taps]
    phase = _phase(problem, layout, grid, problem.stride[1], problem.channels, out_offsets, taps, tap_rows, tap_columns)
    return _plan(layout, [phase], problem.channels // problem.groups, filters, itemsize)


def _column_slices(problem, itemsize):
    """Slices of the output channels that a forward pass of few images and many weights is divided into; else 1."""
    large = math.prod(problem.w_shape) * itemsize > LARGE_BYTES
    tile = target.tile_columns(problem.filters, itemsize)
    if problem.groups > 1 or problem.images >= FEW_ITEMS or not large or problem.filters % tile:
        return 1
    return next(n for n in range(min(FEW_ITEMS, problem.filters // tile), 0, -1) if problem.filters // tile % n == 0)


@lru_cache(maxsize=512)
def input_grad_plan(problem, itemsize, packed=False):
    """The ConvPlan of dx = dy ∗ᵀ w, with one phase for each input position modulo the stride. packed: always pack dy."""
    channels, (slices, problem) = problem.channels, slices_of(problem)
    packed = packed or slices > 1

    def reaching(axis, p):
        """[(k, shift)]: the taps that reach phase p, and where they read dy, relative to the grid position."""
        s, pad, d = problem.stride[axis], problem.padding[axis], problem.dilation[axis]
        return [(k, (p + pad - k * d) // s) for k in range(problem.kernel[axis]) if (p + pad - k * d) % s == 0]

    axis_phases = [range(min(s, n)) for s, n in zip(problem.stride, problem.size)]
    shifts = [{k: shift for p in axis_phases[axis] for k, shift in reaching(axis, p)} for axis in (0, 1)]
    low = tuple(min([0, *s.values()]) for s in shifts)
    reach = tuple(max([0, *s.values()]) - lowest + 1 for s, lowest in zip(shifts, low))
    grid = tuple(-(-n // s) for n, s in zip(problem.size, problem.stride))
    height, width = problem.size
    columns = problem.channels // problem.groups
    layout = _layout(
        problem, problem.out_size, problem.filters, columns, problem.filters, packed, grid, (1, 1), low, reach, itemsize
    )
    layout = layout._replace(out_row=problem.stride[0] * width, out_pixels=height * width, slices=slices)
    phases = []
    for ph in axis_phases[0]:
        for pw in axis_phases[1]:
            phase_grid = (-(-(height - ph) // problem.stride[0]), -(-(width - pw) // problem.stride[1]))
            whole = layout._replace(band=phase_grid[0]) if layout.bands == 1 else layout
            out_offsets = (
                _positions(whole, phase_grid[1], layout.out_row, problem.stride[1], height * width) + ph * width + pw
            )
            taps = [(kh, kw) for kh, _ in reaching(0, ph) for kw, _ in reaching(1, pw)]
            tap_rows = [shifts[0][kh] - low[0] for kh, _ in taps]
            tap_columns = [shifts[1][kw] - low[1] for _, kw in taps]
            phases.append(
                _phase(problem, whole, phase_grid, 1, problem.filters, out_offsets, taps, tap_rows, tap_columns)
            )
    return _plan(layout, phases, problem.filters // problem.groups, channels, itemsize)


@lru_cache(maxsize=512)
def weight_grad_plan(problem, itemsize, packed=False, packed_dy=False):
    """The WeightPlan of dw[(kh, kw, i), :] = Σ over output pixels of x[pixel·stride + (kh, kw)·dilation, i] · dy[pixel, :].

    packed: pack x even if no border is needed; packed_dy: always pack dy.
    """
    filters, (slices, problem) = problem.filters, slices_of(problem)
    packed = packed or slices > 1
    reach = tuple(d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel))
    origin = tuple(-p for p in problem.padding)
    # Pixels that are a multiple of 256 bytes apart share a few sets of the L1 cache, and a tile reads them one after another.
    spread = problem.channels * itemsize % 256 == 0
    pitch = problem.channels + (64 // itemsize if spread else 0)
    columns, ahead = problem.filters // problem.groups, slices == 1 and _is_packed_ahead(problem, itemsize)
    described = (
        problem, problem.size, problem.channels, columns, pitch, packed, problem.out_size, problem.stride, origin, reach,
        itemsize, WEIGHT_POSITIONS,
    )  # fmt: skip
    layout = _layout(*described, ahead)
    if ahead and layout.items * layout.packed_size * itemsize > AHEAD_PACKED_BYTES:
        ahead, layout = False, _layout(*described)
    kh, kw, i = np.ogrid[: problem.kernel[0], : problem.kernel[1], : problem.channels // problem.groups]
    row_offsets = (
        ((kh * problem.dilation[0] * layout.width + kw * problem.dilation[1]) * pitch + i).astype(np.int64).ravel()
    )
    run_offsets = _positions(layout, 1, layout.step * layout.width * pitch, 0, layout.height * layout.width * pitch)
    # dy is read in place if its columns fill whole tiles and its pixels are close together.
    dense = columns % layout.tile == 0 and filters * itemsize <= DENSE_BYTES
    pixels = layout.images * layout.band * problem.out_size[1]
    panel = pixels * (problem.filters if dense else -(-columns // layout.tile) * layout.tile)
    panel = 0 if dense and not packed_dy else panel
    layout = layout._replace(dense=int(dense), ahead=int(ahead), rows=row_offsets.size, slices=slices)
    layout = layout._replace(**_parts(layout, row_offsets.size * filters * itemsize))
    return WeightPlan(layout, layout.record(), np.concatenate([row_offsets, run_offsets]) * itemsize, panel)


def _is_packed_ahead(problem, itemsize):
    """Whether a weight gradient is so large, and its images so few, that all items are packed first, and used part by part."""
    weights, images = math.prod(problem.w_shape), math.prod(problem.x_shape) + math.prod(problem.y_shape)
    return problem.groups == 1 and weights * itemsize > 2 * PART_BYTES and images * itemsize <= AHEAD_BYTES


def _parts(layout, size):
    """The parts of a weight gradient of ``size`` bytes, as fields of its Layout.

    Packed ahead, it is divided into rows and columns, and a part stays in cache while all items are added to it. Otherwise the
    items are divided into chunks, each of which has a total of its own.
    """
    if layout.ahead:
        parts = max(16, -(-size // PART_BYTES))
        splits = max(1, min(parts, layout.rows // PART_ROWS))
        columns = max(1, min(-(-parts // splits), layout.columns // PART_COLUMNS))
        return {"chunks": 1, "splits": splits, "column_splits": columns}
    most = -(-16 // layout.slices)
    chunks = max(1, min(most, layout.items, (32 << 20) // size))
    return {
        "chunks": chunks,
        "splits": max(1, min(most // chunks, layout.rows // target.WIDE_ROWS)),
        "column_splits": 1,
    }
