"""Runs kernels on several threads without compiling a parallel loop for each of them.

A parallel kernel is a serial function ``kernel(t, threads, …)`` that does thread share t of the work and begins with
``if t < 0: return on_threads(t, threads)``. ``threads.launch`` calls it once with a negative t, and it then calls itself
for each share through ``parallel_for``, the only ``prange`` of the package, which takes addresses and is compiled once.
With a prange in each kernel, Numba would compile it three times (the loop body, its wrapper and the enclosing function)
and optimise everything the kernel calls each time: half of the time that a first training step used to take.
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
    """Run share t: call the C function at the address ``share``."""

    def codegen(context, builder, signature, args):
        share, arguments, t = args
        function = builder.inttoptr(share, _share.as_pointer())
        builder.call(function, [builder.inttoptr(arguments, _bytes), t])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@njit(parallel=True)
def parallel_for(share, arguments, threads):
    """Run shares 0 ≤ t < threads, each on its own thread if Numba has that many."""
    for t in prange(threads):
        _call_share(share, arguments, np.int64(t))
    return 0


_SIGNATURE = (types.int64,) * 3


@cache
def parallel_for_address():
    """The address of the compiled ``parallel_for``."""
    parallel_for.compile(_SIGNATURE)
    compiled = parallel_for.overloads[_SIGNATURE]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def _uncounted(arg, value):
    """The value of a kernel argument, or null if Numba counts an array's references through it.

    Each slice of an array increments and later decrements its reference count. All threads would do so at one address,
    one after another, and kernels that slice every row would do little else. The caller of the kernel keeps its arrays
    alive. An array is flattened to memory info, parent, size, itemsize, data, …, named arg.x.0, arg.x.1, ….
    """
    counts = isinstance(arg.type, ir.PointerType) and arg.name.endswith((".0", ".1"))
    return ir.Constant(arg.type, None) if counts else value


@intrinsic
def on_threads(typingctx, t, threads):
    """Call the enclosing kernel once for each share, with its own arguments. Returns 0, or 1 if a share failed.

    t: minus the address of ``parallel_for``. For use in a kernel(t, threads, …) that returns an int64.
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
        # Not inlined: this is a second call of the kernel, and would become a second copy of its code.
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
