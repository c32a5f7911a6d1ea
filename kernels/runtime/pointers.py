"""Arrays at addresses, for compiled functions that are given many arrays in a table."""

from numba import carray, types
from numba.extending import intrinsic

from .jit import njit


def address_of(array):
    """The address of an array's first element, for a table."""
    return array.__array_interface__["data"][0]


@intrinsic
def _pointer(typingctx, address, like):
    """The address as a pointer to elements of the array ``like``."""
    kind = types.CPointer(like.dtype)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, like), codegen


@njit(inner=True)
def array_at(address, size, like):
    """The 1-D array of ``size`` elements, of the dtype of ``like``, at an address. The caller keeps the memory."""
    return carray(_pointer(address, like), (size,))
