"""The transforms of the Winograd algorithm F(4×4, 3×3) as vector code, written as LLVM IR, one vector of channels at a time.

    V = Bᵀ d B    6×6 inputs → 6×6         U = G w Gᵀ    3×3 weights → 6×6
    Y = Aᵀ M A    6×6 → 4×4 outputs        and the transposes of the last two, for the weight gradient

    Bᵀ = 4  0 -5  0  1  0      G =  1/4    0    0       Aᵀ = 1  1  1  1  1  0
         0 -4 -4  1  1  0          -1/6 -1/6 -1/6            0  1 -1  2 -2  0
         0  4 -4 -1  1  0          -1/6  1/6 -1/6            0  1  1  4  4  0
         0 -2 -1  2  1  0          1/24 1/12  1/6            0  1 -1  8 -8  1
         0  2 -1 -2  1  0          1/24 -1/12 1/6
         0  4  0 -5  0  1             0    0    1

(Lavin & Gray 2016, section 4.) The 36 elements k = 6·row + column of a 6×6 are ``plane`` bytes apart. Plain Numba loops over
6×6 tiles do not vectorise and take five times as long. All addresses and steps are in bytes; loads and stores need no
alignment.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .microkernel import Emitter, i32, i64

TILE, SIDE, PLANES = 4, 6, 36  # outputs and inputs per side of a tile; elements of a transformed tile


class _Transforms(Emitter):
    """Loads, stores and small products with Bᵀ, Aᵀ and G on lists of vectors."""

    def add(self, x, y):
        return self.builder.fadd(x, y)

    def sub(self, x, y):
        return self.builder.fsub(x, y)

    def times(self, factor, x, plus=None):
        """factor·x, or factor·x + plus; factor is a Python number."""
        factors = ir.Constant(self.vector, [float(factor)] * self.lanes)
        return self.builder.fmul(factors, x) if plus is None else self.fma(factors, x, plus)

    def address(self, start, step, count):
        """start + count·step; count is a Python int."""
        return start if count == 0 else self.builder.add(start, self.builder.mul(step, ir.Constant(i64, count)))

    def loads(self, start, step, counts):
        return [self.load(self.address(start, step, n), self.vector) for n in counts]

    def stores(self, values, start, step, first=0):
        for n, value in enumerate(values, first):
            self.store(value, self.address(start, step, n))

    def b_transposed(self, x):
        even, odd = self.times(-4, x[2], x[4]), self.times(-4, x[1], x[3])
        even2, odd2 = self.sub(x[4], x[2]), self.sub(x[3], x[1])
        first, last = self.times(4, x[0], self.times(-5, x[2], x[4])), self.times(4, x[1], self.times(-5, x[3], x[5]))
        halves = self.times(2, odd2, even2), self.times(-2, odd2, even2)
        return [first, self.add(even, odd), self.sub(even, odd), *halves, last]

    def a_transposed(self, x):
        even, odd, even2, odd2 = self.add(x[1], x[2]), self.sub(x[1], x[2]), self.add(x[3], x[4]), self.sub(x[3], x[4])
        first, last = self.add(x[0], self.add(even, even2)), self.add(self.times(8, odd2, odd), x[5])
        return [first, self.times(2, odd2, odd), self.times(4, even2, even), last]

    def a(self, x):
        even, odd = self.add(x[0], x[2]), self.add(x[1], x[3])
        even2, odd2 = self.times(4, x[2], x[0]), self.times(8, x[3], self.add(x[1], x[1]))
        return [x[0], self.add(even, odd), self.sub(even, odd), self.add(even2, odd2), self.sub(even2, odd2), x[3]]

    def g(self, x):
        even, odd = self.times(-1 / 6, self.add(x[0], x[2])), self.times(1 / 6, x[1])
        even2, odd2 = self.times(1 / 6, x[2], self.times(1 / 24, x[0])), self.times(1 / 12, x[1])
        middle = self.sub(even, odd), self.add(even, odd), self.add(even2, odd2), self.sub(even2, odd2)
        return [self.times(1 / 4, x[0]), *middle, x[2]]

    def g_transposed(self, x):
        even, odd, even2, odd2 = self.add(x[1], x[2]), self.sub(x[2], x[1]), self.add(x[3], x[4]), self.sub(x[3], x[4])
        first = self.times(1 / 24, even2, self.times(-1 / 6, even, self.times(1 / 4, x[0])))
        return [first, self.times(1 / 12, odd2, self.times(1 / 6, odd)), self.times(1 / 6, self.sub(even2, even), x[5])]


def _columns(rows):
    return [list(column) for column in zip(*rows)]


@intrinsic
def transform_input(typingctx, dtype, source, row, column, to, plane):
    """V = Bᵀ d B. Pixel (i, j) of d is read at source + i·row + j·column; element k of V is stored at to + k·plane."""

    def codegen(context, builder, signature, args):
        source, row, column, to, plane = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        columns = [
            emit.b_transposed(emit.loads(emit.address(source, column, j), row, range(SIDE))) for j in range(SIDE)
        ]
        for i, values in enumerate(_columns(columns)):
            emit.stores(emit.b_transposed(values), to, plane, SIDE * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 5), codegen


@intrinsic
def transform_output(typingctx, dtype, source, plane, to, row, column):
    """Y = Aᵀ M A. Element k of M is read at source + k·plane; pixel (i, j) of Y is stored at to + i·row + j·column."""

    def codegen(context, builder, signature, args):
        source, plane, to, row, column = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        columns = [emit.a_transposed(emit.loads(source, plane, range(j, PLANES, SIDE))) for j in range(SIDE)]
        for i, values in enumerate(_columns(columns)):
            emit.stores(emit.a_transposed(values), emit.address(to, row, i), column)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 5), codegen


@intrinsic
def transform_gradient(typingctx, dtype, source, row, column, to, plane):
    """Z = A dy Aᵀ, the transpose of ``transform_output``. Arguments as in ``transform_input``, with dy and Z for d and V."""

    def codegen(context, builder, signature, args):
        source, row, column, to, plane = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        columns = [emit.a(emit.loads(emit.address(source, column, j), row, range(TILE))) for j in range(TILE)]
        for i, values in enumerate(_columns(columns)):
            emit.stores(emit.a(values), to, plane, SIDE * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 5), codegen


@intrinsic
def transform_filter(typingctx, dtype, source, row, column, to, plane):
    """U = G w Gᵀ. Tap (i, j) of w is read at source + i·row + j·column; element k of U is stored at to + k·plane."""

    def codegen(context, builder, signature, args):
        source, row, column, to, plane = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        w = [emit.loads(emit.address(source, row, i), column, range(3)) for i in range(3)]
        rows = _columns([emit.g(column) for column in _columns(w)])
        for i, values in enumerate(rows):
            emit.stores(emit.g(values), to, plane, SIDE * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 5), codegen


@intrinsic
def transform_weight_grad(typingctx, dtype, source, plane, to, tap):
    """dw = Gᵀ total G, the transpose of ``transform_filter``. Tap (i, j) is stored at to + (3·i + j)·tap."""

    def codegen(context, builder, signature, args):
        source, plane, to, tap = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        columns = [emit.g_transposed(emit.loads(source, plane, range(j, PLANES, SIDE))) for j in range(SIDE)]
        for i, row in enumerate(_columns(columns)):
            emit.stores(emit.g_transposed(row), to, tap, 3 * i)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 4), codegen


@intrinsic
def transpose(typingctx, dtype, source, row, to, to_row):
    """Transpose a square as wide as a vector. Its rows are ``row`` bytes apart, and those of the result ``to_row``."""

    def codegen(context, builder, signature, args):
        source, row, to, to_row = args[1:]
        emit = _Transforms(builder, dtype.dtype)
        lanes, rows = emit.lanes, emit.loads(source, row, range(emit.lanes))

        def shuffle(x, y, picks):
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(i32, lanes), picks))

        step = 1
        while step < lanes:  # exchange the off-diagonal quarters of all squares of side 2·step
            for i in range(lanes):
                if not i & step:
                    x, y = rows[i], rows[i + step]
                    rows[i] = shuffle(x, y, [lanes + j - step if j & step else j for j in range(lanes)])
                    rows[i + step] = shuffle(x, y, [lanes + j if j & step else j + step for j in range(lanes)])
            step *= 2
        emit.stores(rows, to, to_row)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 4), codegen
