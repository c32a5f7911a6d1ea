"""Kernels on several threads, without compiling a parallel loop for each of them.

A parallel kernel is a serial function ``kernel(t, threads, …)`` that does the t-th of so many shares of the work, and begins
with ``if t < 0: return on_threads(t, threads)``. ``threads.launch`` calls it once with a negative t, and it then calls itself
for every share, through ``parallel_for``: the one ``prange`` of the package, which is handed addresses and compiles once.
Numba would else compile a prange of each kernel three times over (its body, the body's wrapper, the function around), and
optimise each time all that the kernel is made of: that was half of what a first training step waited for.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import njit

_i64, _bytes = ir.IntType(64), ir.IntType(8).as_pointer()
_share = ir.FunctionType(ir.VoidType(), [_bytes, _i64])  # (arguments, t)


@intrinsic
def _call_share(typingctx, share, arguments, t):
    """Do share t: call the C function at an address."""

    def codegen(context, builder, signature, args):
        share, arguments, t = args
        function = builder.inttoptr(share, _share.as_pointer())
        builder.call(function, [builder.inttoptr(arguments, _bytes), t])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@njit(parallel=True)
def parallel_for(share, arguments, threads):
    """Shares 0 ≤ t < threads, each on a thread of its own where Numba has so many."""
    for t in prange(threads):
        _call_share(share, arguments, np.int64(t))
    return 0


_SIGNATURE = (types.int64,) * 3


@cache
def parallel_for_address():
    """Where the compiled ``parallel_for`` stands in memory."""
    parallel_for.compile(_SIGNATURE)
    compiled = parallel_for.overloads[_SIGNATURE]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def _uncounted(arg, value):
    """The value of a kernel's parameter, null where it is what Numba counts an array's references by.

    Each slice of an array counts one more and later one less, and all threads would do so in the same place of memory, in
    turn: kernels that take a slice of every row would do little else. Whoever called the kernel holds its arrays. An array
    is flattened to memory info, parent, size, itemsize, data, …, named arg.x.0, arg.x.1, ….
    """
    counts = isinstance(arg.type, ir.PointerType) and arg.name.endswith((".0", ".1"))
    return ir.Constant(arg.type, None) if counts else value


@intrinsic
def on_threads(typingctx, t, threads):
    """Call the kernel this stands in once for each share, with the arguments it has itself; 0, or 1 if a share failed.

    t: minus the address of ``parallel_for``. To be used in a kernel(t, threads, …) that returns an int64.
    """

    def codegen(context, builder, signature, args):
        kernel, module = builder.function, builder.module
        returned, error, _, threads, *rest = kernel.args
        kept = ir.LiteralStructType([_i64, threads.type, *[value.type for value in rest]])

        share = ir.Function(module, _share, name=f"{kernel.name}.share")
        share.linkage = "internal"
        inner = ir.IRBuilder(share.append_basic_block("entry"))
        fields = inner.bitcast(share.args[0], kept.as_pointer())
        values = [inner.load(cgutils.gep_inbounds(inner, fields, 0, n)) for n in range(1, len(kept.elements))]
        values[1:] = [_uncounted(arg, value) for arg, value in zip(rest, values[1:])]
        places = [cgutils.alloca_once(inner, pointer.type.pointee) for pointer in (returned, error)]
        # Not inlined: this is a second place that the kernel is called from, and would be a second copy of it.
        status = inner.call(kernel, [*places, share.args[1], *values], attrs=("noinline",))
        with inner.if_then(inner.icmp_unsigned("!=", status, status.type(0)), likely=False):
            inner.store(_i64(1), cgutils.gep_inbounds(inner, fields, 0, 0))
        inner.ret_void()

        fields = cgutils.alloca_once(builder, kept)
        for n, value in enumerate([_i64(0), threads, *rest]):
            builder.store(value, cgutils.gep_inbounds(builder, fields, 0, n))
        convention = context.call_conv
        pointer = convention.get_function_type(types.int64, _SIGNATURE).as_pointer()
        loop = builder.inttoptr(builder.neg(args[0]), pointer)
        arguments = [builder.ptrtoint(share, _i64), builder.ptrtoint(fields, _i64), threads]
        convention.call_function(builder, loop, types.int64, _SIGNATURE, arguments)
        return builder.load(cgutils.gep_inbounds(builder, fields, 0, 0))

    return types.int64(types.int64, types.int64), codegen
