"""What the machine can do at most, measured: fused multiply-adds a second and memory bandwidth; and the picture of it.

The multiply-add loop is LLVM IR, as the register tile is. Its independent chains of vectors hide the latency of a fused
multiply-add (4 cycles, and 2 to 4 of them begin in each), and with two operands beside them they fit the registers.
"""

import time

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from minires.kernels.runtime import target
from minires.kernels.runtime.memory_pool import empty

CHAINS = 24 if target.KIND in ("avx512", "neon") else 12  # of 32 and of 16 registers
LANES = target.VECTOR_BYTES // 4


@intrinsic
def fma_chains(typingctx, x, y, steps):
    """CHAINS vectors of float32, t ← t·x + y so many times; the sum of all lanes. steps is at least 1."""
    signature = types.float32(types.float32, types.float32, types.int64)

    def codegen(context, builder, signature, args):
        i32, i64, scalar = ir.IntType(32), ir.IntType(64), ir.FloatType()
        vector = ir.VectorType(scalar, LANES)
        undefined = ir.Constant(vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(i32, LANES), None)

        def splat(value):
            first = builder.insert_element(undefined, value, ir.Constant(i32, 0))
            return builder.shuffle_vector(first, undefined, zeros)

        fma = builder.module.declare_intrinsic(f"llvm.fma.v{LANES}f32", (), ir.FunctionType(vector, [vector] * 3))

        def multiply_add(t):
            if target.HAS_FMA:
                return builder.call(fma, [t, xs, ys])
            return builder.fadd(builder.fmul(t, xs), ys)

        xs, ys = splat(args[0]), splat(args[1])
        start = [builder.fmul(ys, ir.Constant(vector, [float(i)] * LANES)) for i in range(CHAINS)]  # no two alike
        entry, loop, done = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(i64)
        chains = [builder.phi(vector) for _ in range(CHAINS)]
        new = [multiply_add(t) for t in chains]
        left = builder.sub(step, ir.Constant(i64, 1))
        for phi, first, following in zip([step, *chains], [args[2], *start], [left, *new]):
            phi.add_incoming(first, entry)
            phi.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed(">", left, ir.Constant(i64, 0)), loop, done)
        builder.position_at_end(done)
        total = new[0]
        for t in new[1:]:
            total = builder.fadd(total, t)
        sum_ = builder.extract_element(total, ir.Constant(i32, 0))
        for lane in range(1, LANES):
            sum_ = builder.fadd(sum_, builder.extract_element(total, ir.Constant(i32, lane)))
        return sum_

    return signature, codegen


@numba.njit
def chains(x, y, steps):
    return fma_chains(x, y, steps)


@numba.njit(parallel=True)
def chains_on_threads(x, y, steps, sums):
    for t in prange(sums.size):
        sums[t] = chains(x, y, steps)


@numba.njit
def triad(a, b, c):
    """a = b + 3c. A loop over a slice, from 0, is one that LLVM vectorises."""
    for i in range(a.size):
        a[i] = b[i] + np.float32(3) * c[i]


@numba.njit(parallel=True)
def triad_on_threads(a, b, c, threads):
    """A piece a thread."""
    for t in prange(threads):
        mine = slice(t * a.size // threads, (t + 1) * a.size // threads)
        triad(a[mine], b[mine], c[mine])


class Limits:
    """The two limits, on so many threads."""

    def __init__(self, threads, steps=2_000_000, megabytes=128):
        numba.set_num_threads(threads)
        self.threads, self.steps = threads, steps
        self.sums = np.empty(threads, np.float32)
        self.arrays = [empty((megabytes << 18,), np.float32) for _ in range(3)]  # in huge pages, as the kernels' are
        for array in self.arrays:
            array[...] = 1
        self._chains(1)
        self._triad()

    def _chains(self, steps):
        chains_on_threads(np.float32(0.999), np.float32(0.001), steps, self.sums)

    def _triad(self):
        triad_on_threads(*self.arrays, self.threads)

    def gflops(self, times=7):
        """The best of a few: a multiplication and an addition a lane, chain and step."""
        flops = 2 * LANES * CHAINS * self.steps * self.threads
        return flops / min(_timed(self._chains, self.steps) for _ in range(times)) / 1e9

    def bandwidth(self, times=5):
        """GB/s, the best of a few: two arrays read and one written (what the cache fetches to write is not counted)."""
        moved = sum(a.nbytes for a in self.arrays)
        return moved / min(_timed(self._triad) for _ in range(times)) / 1e9


def _timed(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def draw(result, path):
    """The roofline of the part ``kernels``: every kernel a point, GFLOP/s over FLOPs a byte that memory must carry."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from .report import count, gflops

    peak, bandwidth = result["limits"]["gflops"], result["limits"]["bandwidth"]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    rows = [row for row in result["rows"] if "minires" in row["seconds"]]
    intensity = [row["flops"] / row["bytes"] for row in rows]
    edges = np.geomspace(min([*intensity, peak / bandwidth]) / 2, max([*intensity, peak / bandwidth]) * 2, 200)
    axes.plot(edges, np.minimum(peak, edges * bandwidth), color="black", linewidth=1)
    axes.text(edges[-1], peak * 1.03, f"{peak:.0f} GFLOP/s", ha="right", fontsize=8)
    axes.text(edges[3], edges[3] * bandwidth * 1.1, f"{bandwidth:.0f} GB/s", fontsize=8)
    for use, marker, color in zip(dict.fromkeys(row["use"] for row in rows), "os^", ("C0", "C1", "C2")):
        points = [(x, gflops(row, "minires")) for x, row in zip(intensity, rows) if row["use"] == use]
        axes.scatter(*zip(*points), marker=marker, color=color, label=f"minires, {use}", zorder=3)
        others = [(x, gflops(row)) for x, row in zip(intensity, rows) if row["use"] == use and gflops(row)]
        if others:
            axes.scatter(
                *zip(*others), marker=marker, facecolors="none", edgecolors=color, label=f"PyTorch's best, {use}"
            )
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte, each array moved once", ylabel="GFLOP/s")
    axes.set_title(f"Convolutions in float32, {count(result['threads'])}", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
