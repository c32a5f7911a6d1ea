"""The transforms of Winograd's F(2×2, 3×3) as vector code, one vector of channels at a time, written as LLVM IR.

    V = Bᵀ d B    4×4 inputs → 4×4         U = G w Gᵀ    3×3 weights → 4×4
    Y = Aᵀ M A    4×4 → 2×2 outputs        and the transposes of the last two, for the weight gradient

    Bᵀ = 1  0 -1  0      G = 1   0   0      Aᵀ = 1  1  1  0
         0  1  1  0          ½   ½   ½           0  1 -1 -1
         0 -1  1  0          ½  -½   ½
         0  1  0 -1          0   0   1

(Lavin & Gray 2016, section 4.1.) The 16 numbers k = 4·row + column of a 4×4 stand ``plane`` bytes apart. Plain Numba loops
over these 4×4 do not vectorise, which costs five times. All addresses and steps are bytes; loads and stores need no alignment.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .tile import _Emitter, _i32, _i64


class _Transforms(_Emitter):
    """Loads, stores and the small products with Bᵀ, Aᵀ, G on lists of vectors."""

    def add(self, x, y):
        return self.builder.fadd(x, y)

    def sub(self, x, y):
        return self.builder.fsub(x, y)

    def half(self, x):
        halves = ir.Constant(self.vector, [0.5] * self.lanes)
        return self.builder.fmul(x, halves)

    def address(self, start, step, count):
        """start + count·step; count is a Python int."""
        return start if count == 0 else self.builder.add(start, self.builder.mul(step, ir.Constant(_i64, count)))

    def loads(self, start, step, counts):
        return [self.load(self.address(start, step, n), self.vector) for n in counts]

    def stores(self, values, start, step, first=0):
        for n, value in enumerate(values, first):
            self.store(value, self.address(start, step, n))

    def b_transposed(self, x):
        return [self.sub(x[0], x[2]), self.add(x[1], x[2]), self.sub(x[2], x[1]), self.sub(x[1], x[3])]

    def a_transposed(self, x):
        return [self.add(x[0], self.add(x[1], x[2])), self.sub(self.sub(x[1], x[2]), x[3])]

    def a(self, x):
        return [x[0], self.add(x[0], x[1]), self.sub(x[0], x[1]), self.builder.fneg(x[1])]

    def g(self, x):
        outer, middle = self.half(self.add(x[0], x[2])), self.half(x[1])
        return [x[0], self.add(outer, middle), self.sub(outer, middle), x[2]]

    def g_transposed(self, x):
        both = self.half(self.add(x[1], x[2]))
        return [self.add(x[0], both), self.half(self.sub(x[1], x[2])), self.add(both, x[3])]


def _columns(rows):
    return [list(column) for column in zip(*rows)]


@intrinsic
def transform_input(typingctx, dtype, source, row, column, to, plane):
    """V = Bᵀ d B; pixel (i, j) of d is at source + i·row + j·column."""

    def codegen(context, builder, signature, args):
        source, row, column, to, plane = args[1:]
        emit = _Transforms(builder, dtype.dtype)

        def pixels(i):
            return emit.loads(emit.address(source, row, i), column, range(4))

        middle, lower = pixels(1), pixels(2)  # with these two rows in eight registers, no other value need wait in one
        for i in range(4):
            if i == 0:
                d = [emit.sub(x, y) for x, y in zip(pixels(0), lower)]
            elif i == 1:
                d = [emit.add(x, y) for x, y in zip(middle, lower)]
            elif i == 2:
                d = [emit.sub(x, y) for x, y in zip(lower, middle)]
            else:
                d = [emit.sub(x, y) for x, y in zip(middle, pixels(3))]
            emit.stores(emit.b_transposed(d), to, plane, 4 * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 5), codegen


@intrinsic
def transform_output(typingctx, dtype, source, plane, to00, to01, to10, to11):
    """Y = Aᵀ M A, its four pixels stored at four addresses."""

    def codegen(context, builder, signature, args):
        source, plane, *to = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        # Column by column: four loads at a time, two values kept.
        columns = [emit.a_transposed(emit.loads(source, plane, range(j, 16, 4))) for j in range(4)]
        for row, addresses in zip(_columns(columns), (to[:2], to[2:])):
            for value, address in zip(emit.a_transposed(row), addresses):
                emit.store(value, address)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 6), codegen


@intrinsic
def transform_gradient(typingctx, dtype, from00, from01, from10, from11, to, plane):
    """Z = A dy Aᵀ, the transpose of ``transform_output``, from four addresses."""

    def codegen(context, builder, signature, args):
        *source, to, plane = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        dy = [emit.load(address, emit.vector) for address in source]
        rows = _columns([emit.a([dy[j], dy[2 + j]]) for j in range(2)])
        for i, row in enumerate(rows):
            emit.stores(emit.a(row), to, plane, 4 * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 6), codegen


@intrinsic
def transform_filter(typingctx, dtype, source, row, column, to, plane):
    """U = G w Gᵀ; tap (i, j) of w is at source + i·row + j·column."""

    def codegen(context, builder, signature, args):
        source, row, column, to, plane = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        w = [emit.loads(emit.address(source, row, i), column, range(3)) for i in range(3)]
        rows = _columns([emit.g(column) for column in _columns(w)])
        for i, values in enumerate(rows):
            emit.stores(emit.g(values), to, plane, 4 * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 5), codegen


@intrinsic
def transform_weight_grad(typingctx, dtype, source, plane, to, tap):
    """dw = Gᵀ total G, the transpose of ``transform_filter``; tap (i, j) is stored at to + (3·i + j)·tap."""

    def codegen(context, builder, signature, args):
        source, plane, to, tap = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        columns = [emit.g_transposed(emit.loads(source, plane, range(j, 16, 4))) for j in range(4)]
        for i, row in enumerate(_columns(columns)):
            emit.stores(emit.g_transposed(row), to, tap, 3 * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 4), codegen


@intrinsic
def transpose(typingctx, dtype, source, row, to):
    """A square as wide as a vector, its rows ``row`` apart, stored transposed and without gaps."""

    def codegen(context, builder, signature, args):
        source, row, to = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        lanes, rows = emit.lanes, emit.loads(source, row, range(emit.lanes))

        def shuffle(x, y, picks):
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_i32, lanes), picks))

        step = 1
        while step < lanes:  # exchange the off-diagonal quarters of all squares of 2·step
            for i in range(lanes):
                if not i & step:
                    x, y = rows[i], rows[i + step]
                    rows[i] = shuffle(x, y, [lanes + j - step if j & step else j for j in range(lanes)])
                    rows[i + step] = shuffle(x, y, [lanes + j if j & step else j + step for j in range(lanes)])
            step *= 2
        emit.stores(rows, to, ir.Constant(_i64, lanes * emit.size))
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 3), codegen
