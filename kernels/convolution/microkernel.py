"""The micro-kernels: the inner loops of every convolution and matrix product, written as LLVM IR.

    C[i, :] (+)= Σ_r Σ_k  A[i; r, k] · B[r·K + k, :]        i < rows of the tile, r < runs, k < K

A is never stored as a matrix. Its element (i; r, k) is at  a + row_offset[i] + run_offset[r] + k·a_step, which is im2col by
indirection (Dukhan 2019): a row is an output pixel, a run is a sequence of taps that are adjacent in the image. Rows of B are
b_step apart, row i of C is at  c + out_offset[i]. All addresses and offsets are in bytes.

A register tile of MR × NV vector accumulators stays in registers for the whole sum, so a step is NV loads, MR broadcasts and
MR·NV fused multiply-adds. Plain Numba loops keep the accumulators in memory and run at a fifth of the speed. MR, NV and ADD
are literals of a module-level intrinsic, which Numba caches; a kernel from a closure factory would be compiled in every
process.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..runtime import target

i32, i64 = ir.IntType(32), ir.IntType(64)


class Emitter:
    """The few IR patterns that micro-kernels consist of, for one element type."""

    def __init__(self, builder, dtype):
        self.builder = builder
        self.size = dtype.bitwidth // 8
        self.lanes = target.VECTOR_BYTES // self.size
        self.scalar = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.vector, None)
        name = f"llvm.fma.v{self.lanes}f{dtype.bitwidth}"
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        self.llvm_fma = builder.module.declare_intrinsic(name, (), signature) if target.HAS_FMA else None

    def fma(self, x, y, total):
        if self.llvm_fma is not None:
            return self.builder.call(self.llvm_fma, [x, y, total])
        return self.builder.fadd(self.builder.fmul(x, y), total)

    def at(self, address, kind):
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address, kind):
        value = self.builder.load(self.at(address, kind))
        value.align = 8 if kind is i64 else self.size
        return value

    def store(self, value, address):
        self.builder.store(value, self.at(address, value.type)).align = self.size

    def splat(self, scalar):
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(i32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(i32, self.lanes), None))

    def plus(self, address, offset):
        return self.builder.add(address, ir.Constant(i64, offset) if isinstance(offset, int) else offset)

    def entry(self, table, index):
        """table[index] of the int64 table at address ``table``; the index is a Python int or an i64 value."""
        if isinstance(index, int):
            return self.load(self.plus(table, 8 * index), i64)
        return self.load(self.plus(table, self.builder.shl(index, ir.Constant(i64, 3))), i64)


def _keep_rolled(module, branch):
    """Tell LLVM not to unroll the loop that this branch closes: copies of the row addresses would spill to the stack."""
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([disable, ir.Constant(i64, id(branch))])  # a new node, which then becomes its own first
    loop.operands = (loop, disable)  # operand, as LLVM requires of a loop's identifier
    branch.set_metadata("llvm.loop", loop)


def _phi(builder, kind, start, block):
    phi = builder.phi(kind)
    phi.add_incoming(start, block)
    return phi


@intrinsic(prefer_literal=True)
def indirect_micro_kernel(
    typingctx,
    dtype, MR, NV, ADD,  # float32 or float64; literals: rows, vectors, and 1 to add to C or 0 to overwrite it
    a, row_offset, a_step,  # A: its address, the address of the int64 row offsets, bytes from one k to the next
    run_offset, runs, K,  # the address of the int64 run offsets, the number of runs, the steps in a run
    b, b_step,  # B: its address, bytes from one row to the next
    c, out_offset,  # C: its address, the address of the int64 row offsets
):  # fmt: skip
    """C (+)= Σ A·B as above, MR rows × NV vectors. runs and K are at least 1."""
    if not all(isinstance(v, types.IntegerLiteral) for v in (MR, NV, ADD)):
        return None
    rows, vectors, add = MR.literal_value, NV.literal_value, ADD.literal_value
    signature = types.void(dtype, MR, NV, ADD, *([types.intp] * 10))

    def codegen(context, builder, signature, args):
        a, row_offset, a_step, run_offset, runs, K, b, b_step, c, out_offset = args[4:]
        emit = Emitter(builder, dtype.dtype)
        zero, one = ir.Constant(i64, 0), ir.Constant(i64, 1)
        width = emit.lanes * emit.size

        def tile_rows():
            """Yield the addresses of C's vectors, row by row."""
            for i in range(rows):
                row = emit.plus(c, emit.entry(out_offset, i))
                yield from (emit.plus(row, v * width) for v in range(vectors))

        row_address = [emit.plus(a, emit.entry(row_offset, i)) for i in range(rows)]
        start = [emit.load(address, emit.vector) for address in tile_rows()] if add else [emit.zero] * (rows * vectors)

        a_end = builder.mul(K, a_step)
        entry = builder.block
        run, step, run_end, done = (builder.append_basic_block(n) for n in ("run", "step", "run_end", "done"))
        builder.branch(run)

        builder.position_at_end(run)
        r = _phi(builder, i64, zero, entry)
        b_run = _phi(builder, i64, b, entry)
        total_run = [_phi(builder, emit.vector, value, entry) for value in start]
        run_start = emit.entry(run_offset, r)
        a_run = [emit.plus(address, run_start) for address in row_address]
        builder.branch(step)

        builder.position_at_end(step)
        a_k = _phi(builder, i64, zero, run)  # one running offset serves all rows, and counts the steps
        b_k = _phi(builder, i64, b_run, run)
        total = [_phi(builder, emit.vector, value, run) for value in total_run]
        b_vectors = [emit.load(emit.plus(b_k, v * width), emit.vector) for v in range(vectors)]
        new = []
        for i in range(rows):
            x = emit.splat(emit.load(emit.plus(a_run[i], a_k), emit.scalar))
            new += [emit.fma(x, b_vectors[v], total[i * vectors + v]) for v in range(vectors)]
        a_next, b_next = emit.plus(a_k, a_step), emit.plus(b_k, b_step)
        for phi, value in zip([a_k, b_k, *total], [a_next, b_next, *new]):
            phi.add_incoming(value, step)
        _keep_rolled(builder.module, builder.cbranch(builder.icmp_signed("!=", a_next, a_end), step, run_end))

        builder.position_at_end(run_end)
        r_next = emit.plus(r, one)
        for phi, value in zip([r, b_run, *total_run], [r_next, b_next, *new]):
            phi.add_incoming(value, run_end)
        builder.cbranch(builder.icmp_signed("<", r_next, runs), run, done)

        builder.position_at_end(done)
        for value, address in zip(new, tile_rows()):
            emit.store(value, address)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def micro_kernel(
    typingctx,
    dtype, MR, NV, STEPS,  # float32 or float64; literals: rows, vectors, and the steps that are unrolled
    a, a_row,  # A: its address, bytes from one row to the next; the elements of a row are contiguous
    b,  # B: its address; rows are NV vectors and contiguous
    chunks,  # the inner dimension is chunks·STEPS; at least 1
    c, c_row,  # C: its address, bytes from one row to the next
):  # fmt: skip
    """C = A·B, MR rows × NV vectors, for short sums.

    Without tables, and with STEPS steps unrolled, a call costs little besides its multiplications. For a sum over 16
    channels, the kernel above spends a quarter of its time elsewhere (measured, AVX2).
    """
    if not all(isinstance(v, types.IntegerLiteral) for v in (MR, NV, STEPS)):
        return None
    rows, vectors, steps = MR.literal_value, NV.literal_value, STEPS.literal_value
    signature = types.void(dtype, MR, NV, STEPS, *([types.intp] * 6))

    def codegen(context, builder, signature, args):
        a, a_row, b, chunks, c, c_row = args[4:]
        emit = Emitter(builder, dtype.dtype)
        width = emit.lanes * emit.size
        row_start = [builder.add(a, builder.mul(a_row, ir.Constant(i64, i))) for i in range(rows)]
        entry = builder.block
        chunk, done = builder.append_basic_block("chunk"), builder.append_basic_block("done")
        builder.branch(chunk)

        builder.position_at_end(chunk)
        left = _phi(builder, i64, chunks, entry)
        row = [_phi(builder, i64, start, entry) for start in row_start]
        b_k = _phi(builder, i64, b, entry)
        total = [_phi(builder, emit.vector, emit.zero, entry) for _ in range(rows * vectors)]
        new = list(total)
        for k in range(steps):
            b_vectors = [emit.load(emit.plus(b_k, (k * vectors + v) * width), emit.vector) for v in range(vectors)]
            for i in range(rows):
                x = emit.splat(emit.load(emit.plus(row[i], k * emit.size), emit.scalar))
                for v in range(vectors):
                    new[i * vectors + v] = emit.fma(x, b_vectors[v], new[i * vectors + v])
        left_next = builder.sub(left, ir.Constant(i64, 1))
        after = [
            left_next,
            *[emit.plus(r, steps * emit.size) for r in row],
            emit.plus(b_k, steps * vectors * width),
            *new,
        ]
        for phi, value in zip([left, *row, b_k, *total], after):
            phi.add_incoming(value, chunk)
        _keep_rolled(
            builder.module, builder.cbranch(builder.icmp_signed("!=", left_next, ir.Constant(i64, 0)), chunk, done)
        )

        builder.position_at_end(done)
        for i in range(rows):
            to = builder.add(c, builder.mul(c_row, ir.Constant(i64, i)))
            for v in range(vectors):
                emit.store(new[i * vectors + v], emit.plus(to, v * width))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def copy_vectors(typingctx, dtype, NV, source, to):
    """Copy NV (a literal) vectors of float32 or float64 from one address to another."""
    if not isinstance(NV, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        emit = Emitter(builder, dtype.dtype)
        at = [v * emit.lanes * emit.size for v in range(NV.literal_value)]
        for value, offset in [(emit.load(emit.plus(args[2], offset), emit.vector), offset) for offset in at]:
            emit.store(value, emit.plus(args[3], offset))
        return context.get_dummy_value()

    return types.void(dtype, NV, types.intp, types.intp), codegen
