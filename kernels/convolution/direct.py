"""Direct convolution, an implicit im2col product for any geometry: forward pass and input gradient.

The im2col matrix is not stored but addressed through an indirection table (``direct_plan.py``; Dukhan 2019), and multiplied
by the macro-kernel (``macrokernel.py``). Each work item is packed (``prologue.py``), convolved and finished
(``epilogue.py``) while it is in cache, so a convolution's batch norm, ReLU and residual addition need no memory passes of
their own.
"""

import numpy as np

from ..descriptors import NOTHING, PLAIN
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.recording import preparing
from ..runtime.threads import LOCK, get_num_threads, launch
from .direct_plan import forward_plan, input_grad_plan
from .epilogue import epilogue_arguments, finish, join_items
from .macrokernel import macro_kernel, prefetch_shares
from .prefetch import FAR, LINE, STREAMS, add_stream, address, next_block
from .prologue import operand_arguments, pack_item, pack_panels, repeat_channels
from .work_items import add_epilogue, add_next_source, item_counts, item_stretch, multiply_adds

ONCE_STEPS = 384  # of a sum at a time: of their weights, a tile of rows can prefetch its share while it multiplies


@njit(inner=True)
def _multiply_once(
    a, a_at, rows, positions, run_offsets, runs, run,  # A, as ``macro_kernel`` takes it
    panels, b_at,  # B: the packed weights, and the element at which they begin
    out, c_at, outs, columns, width,  # C
):  # fmt: skip
    """One product of few rows with weights that are in no cache, each of which is read from memory once.

    All tiles of rows use a few steps of a run before the next begin, which are prefetched meanwhile. The order of each sum is
    that of ``macro_kernel``.
    """
    ahead, size = np.zeros((1, 4), np.int64), out.itemsize
    shares = prefetch_shares(positions, width, size)
    ahead[0, 1] = (ONCE_STEPS * width * size + shares * LINE - 1) // (shares * LINE) * LINE
    ahead[0, 3] = FAR
    for n in range((columns + width - 1) // width):
        for r in range(runs):
            for k in range(0, run, ONCE_STEPS):
                steps = min(ONCE_STEPS, run - k)
                ahead[0, 0] = address(panels) + (b_at + steps * width) * size
                macro_kernel(
                    a, a_at + k, rows, positions, 1, run_offsets[r:], 1, steps, panels, b_at, 0, width,
                    out, c_at + n * width, outs, min(width, columns - n * width), width, r + k > 0, ahead,
                )  # fmt: skip
                b_at += steps * width


@njit(inner=True)
def convolve_phase(
    f, item, slice_of,  # the phase, the work item, and its slice of the channels
    source, packed,  # the images, and the buffer with the packed item, which is not used if the images are read in place
    panels,  # the packed weights
    out, O,  # the outputs, 1-D, and the number of their channels
    layout, phases, indirection,  # the plan (direct_plan.ConvPlan)
    streams,  # what to prefetch meanwhile (prefetch.py); each group of a phase is one block of them
):  # fmt: skip
    """Compute one phase of one work item."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    grid_rows, grid_columns, runs, run, panel_at = phases[f]
    positions = images * min(layout.band, grid_rows - q) * grid_columns
    C, columns, width = layout.channels, layout.columns, layout.tile
    mine = layout.groups * columns  # channels that the item computes
    first = (image * layout.out_pixels + q * layout.out_row) * O + slice_of * mine
    rows, outs = indirection[f, : layout.rows], indirection[f, layout.rows : 2 * layout.rows]
    if runs == 0:
        for p in range(positions):
            at = first + outs[p] // out.itemsize
            out[at : at + mine] = 0
        return
    a = source if layout.direct else packed
    at = (image * layout.source_height + q * layout.step) * layout.source_width * C if layout.direct else 0
    block = runs * run * width
    if layout.shared:
        b_at = panel_at + slice_of * ((columns + width - 1) // width * block)
        _multiply_once(
            a,
            at,
            rows,
            positions,
            indirection[f, 2 * layout.rows :],
            runs,
            run,
            panels,
            b_at,
            out,
            first,
            outs,
            columns,
            width,
        )
        return
    for g in range(layout.groups):
        a_at, c_at = at + g * (C // layout.groups), first + g * columns
        b_at = panel_at + (slice_of * layout.groups + g) * ((columns + width - 1) // width * block)
        macro_kernel(
            a, a_at, rows, positions, 1, indirection[f, 2 * layout.rows :], runs, run, panels, b_at, block, width,
            out, c_at, outs, columns, width, False, streams,
        )  # fmt: skip
        next_block(streams)


@njit()
def _convolve(
    share, shares, thread,
    kind, source, partner, parameters, folded,  # an Operand (prologue.operand_arguments)
    panels,  # the packed weights
    out, O,  # the outputs, 1-D, and the number of their channels
    record, phases, indirection,  # the plan (direct_plan.ConvPlan)
    flags, other, c, z, after, after_folded,  # an Epilogue (epilogue.epilogue_arguments)
    results,  # (items, 2, O) float64: the epilogue's sums over each item
    scratch,  # (threads, packed_size): buffers for packed items
):  # fmt: skip
    """out = Σ over taps of source · panels, one work item after another: the forward pass and the input gradient."""
    if share < 0:
        return on_threads(share, shares)
    layout, packed = record[0], scratch[thread]
    items, mine = layout.slices * layout.items, layout.groups * layout.columns
    if share * items // shares == (share + 1) * items // shares:
        return 0
    before, ends = repeat_channels(parameters, folded, source), repeat_channels(after, after_folded, out)
    streams = np.zeros((STREAMS, 4), np.int64)
    stop_item = (share + 1) * items // shares
    for number in range(share * items // shares, stop_item):
        slice_of, item = number // layout.items, number % layout.items
        if layout.direct == 0:
            pack_item(item, slice_of, kind, source, partner, before, layout, packed)
        start, stop = item_stretch(item, layout, O)
        n = 0
        if layout.slices == 1:  # streams are contiguous
            blocks = len(phases) * layout.groups
            parts = prefetch_shares((stop - start) // (O * len(phases)), layout.tile, out.itemsize)
            n = add_stream(streams, n, out, start, stop, blocks, parts, 1)
            n = add_next_source(streams, n, item, stop_item, layout, kind, source, partner, blocks, parts)
            n = add_epilogue(streams, n, flags, other, c, z, start, stop, blocks, parts)
        for f in range(len(phases)):
            convolve_phase(f, item, slice_of, source, packed, panels, out, O, layout, phases, indirection, streams[:n])
        if flags[0] != NOTHING:
            start += slice_of * mine
            ys, others, cs, zs = out[start:stop], other[start:stop], c[start:stop], z[start:stop]
            finish(flags, ys, others, cs, zs, ends, results[item], slice_of * mine, mine)
    return 0


def _run(problem, plan, operand, w, out, transposed, epilogue):
    """Fill ``out``. Returns it with the epilogue's result."""
    layout, O = plan.layout, out.shape[3]
    groups = problem.groups
    ins, outs = (w.shape[3] // groups, w.shape[2]) if transposed else (w.shape[2], w.shape[3] // groups)
    with preparing():
        panels = empty((plan.panels,), w.dtype)
        for at, taps in zip(plan.phases[:, 4], plan.taps):
            if len(taps):
                launch(pack_panels, w, taps, groups, ins, outs, transposed, layout.tile, panels, at)
    reads = *operand_arguments(operand), panels, out.reshape(-1), O, plan.record, plan.phases, plan.indirection
    results = np.zeros((0 if epilogue.kind == NOTHING else layout.items, 2, O))
    with LOCK:  # one buffer per thread, so the number of threads must not change in between
        scratch = empty((get_num_threads(), layout.packed_size), w.dtype)
        launch(_convolve, *reads, *epilogue_arguments(epilogue, out), results, scratch, work=multiply_adds(problem))
    return out, join_items(epilogue, results, item_counts(layout))


def convolve(problem, x, w, epilogue):
    """y = x ∗ w, finished by the epilogue, and the epilogue's result. x is an Operand, w an array (KH, KW, I, O)."""
    plan = forward_plan(problem, w.itemsize, x.kind != PLAIN)
    return _run(problem, plan, x, w, empty(problem.y_shape, w.dtype), False, epilogue)


def convolve_input_grad(problem, dy, w, epilogue):
    """dx of y = x ∗ w, finished by the epilogue, and the epilogue's result. dy is an Operand, w an array (KH, KW, I, O)."""
    plan = input_grad_plan(problem, w.itemsize, dy.kind != PLAIN)
    return _run(problem, plan, dy, w, empty(problem.x_shape, w.dtype), True, epilogue)
