"""Runs kernels on several threads without compiling a parallel loop for each of them.

A parallel kernel is a serial function ``kernel(share, shares, thread, …)`` that does one share of the work and begins with
``if share < 0: return on_threads(share, shares)``. ``threads.launch`` calls it once with a negative share, and it then calls
itself for each share through ``workers.run``, which takes addresses and is compiled once. thread: the number of the thread that
does the share, below the number of threads; for scratch arrays, of which each thread has one. Results depend neither on it nor
on the number of shares.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .workers import RUN, SHARE_TYPE

_i64 = ir.IntType(64)
_RUN_SIGNATURE = (types.int64,) * 5


def _uncounted(arg, value):
    """The value of a kernel argument, or null if Numba counts an array's references through it.

    Each slice of an array increments and later decrements its reference count. All threads would do so at one address,
    one after another, and kernels that slice every row would do little else. The caller of the kernel keeps its arrays
    alive. An array is flattened to memory info, parent, size, itemsize, data, …, named arg.x.0, arg.x.1, ….
    """
    counts = isinstance(arg.type, ir.PointerType) and arg.name.endswith((".0", ".1"))
    return ir.Constant(arg.type, None) if counts else value


@intrinsic
def on_threads(typingctx, share, shares):
    """Call the enclosing kernel once for each share, with its own arguments. Returns 0, or 1 if a share failed.

    share: minus the address of the workers' shared array. For use in a kernel(share, shares, thread, …) that returns an int64.
    """

    def codegen(context, builder, signature, args):
        kernel, module = builder.function, builder.module
        returned, error, _, shares, _, *rest = kernel.args
        kept = ir.LiteralStructType([_i64, shares.type, *[value.type for value in rest]])

        share = ir.Function(module, SHARE_TYPE, name=f"{kernel.name}.share")
        share.linkage = "internal"
        inner = ir.IRBuilder(share.append_basic_block("entry"))
        fields = inner.bitcast(share.args[0], kept.as_pointer())
        values = [inner.load(cgutils.gep_inbounds(inner, fields, 0, n)) for n in range(1, len(kept.elements))]
        values[1:] = [_uncounted(arg, value) for arg, value in zip(rest, values[1:])]
        places = [cgutils.alloca_once(inner, pointer.type.pointee) for pointer in (returned, error)]
        # Not inlined: this is a second call of the kernel, and would become a second copy of its code.
        share_of, thread = share.args[1:]
        status = inner.call(kernel, [*places, share_of, values[0], thread, *values[1:]], attrs=("noinline",))
        with inner.if_then(inner.icmp_unsigned("!=", status, status.type(0)), likely=False):
            inner.store(_i64(1), cgutils.gep_inbounds(inner, fields, 0, 0))
        inner.ret_void()

        fields = cgutils.alloca_once(builder, kept)
        for n, value in enumerate([_i64(0), shares, *rest]):
            builder.store(value, cgutils.gep_inbounds(builder, fields, 0, n))
        convention = context.call_conv
        pointer = convention.get_function_type(types.int64, _RUN_SIGNATURE).as_pointer()
        control = builder.neg(args[0])
        run = builder.load(builder.inttoptr(builder.add(control, _i64(RUN)), pointer.as_pointer()))
        size = _i64(context.get_abi_sizeof(kept))  # a multiple of 8, since it begins with an int64
        arguments = [control, builder.ptrtoint(share, _i64), builder.ptrtoint(fields, _i64), size, shares]
        convention.call_function(builder, run, types.int64, _RUN_SIGNATURE, arguments)
        return builder.load(cgutils.gep_inbounds(builder, fields, 0, 0))

    return types.int64(types.int64, types.int64), codegen
