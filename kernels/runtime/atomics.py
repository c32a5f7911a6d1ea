"""Atomic operations on 64-bit integers in memory, for compiled functions. Addresses are integers.

All are sequentially consistent: they order everything else that a thread reads and writes around them.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import target

_I64 = ir.IntType(64)
_INT = types.int64
_ARCHITECTURE = target.TRIPLE.split("-")[0]


def _at(builder, address):
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def load(typingctx, address):
    """The value at an address."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_at(builder, args[0]), "seq_cst", 8)

    return _INT(_INT), codegen


@intrinsic
def store(typingctx, address, value):
    """Write a value."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], _at(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(_INT, _INT), codegen


@intrinsic
def add(typingctx, address, value):
    """Add to the value at an address. Returns what was there before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _at(builder, args[0]), args[1], "seq_cst")

    return _INT(_INT, _INT), codegen


@intrinsic
def replace(typingctx, address, expected, value):
    """Write a value where ``expected`` is. Returns whether it was there (compare and swap)."""

    def codegen(context, builder, signature, args):
        result = builder.cmpxchg(_at(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(_INT, _INT, _INT), codegen


@intrinsic
def pause(typingctx):
    """Tell the core that it is in a loop that waits, so that its other hyperthread gets more of it."""

    def codegen(context, builder, signature, args):
        void, i32 = ir.VoidType(), ir.IntType(32)
        if _ARCHITECTURE in ("x86_64", "i686"):
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), ir.FunctionType(void, [])), [])
        elif _ARCHITECTURE in ("aarch64", "arm64"):
            hint = builder.module.declare_intrinsic("llvm.aarch64.hint", (), ir.FunctionType(void, [i32]))
            builder.call(hint, [i32(1)])  # yield
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call(typingctx, function, argument):
    """Call the C function ``void function(int)`` at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [builder.trunc(args[1], ir.IntType(32))])
        return context.get_dummy_value()

    return types.void(_INT, _INT), codegen
