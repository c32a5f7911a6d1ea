"""The pickle of a PyTorch file: a machine that reads tensors and plain containers, and runs nothing.

torch.save pickles a tensor as a call of ``torch._utils._rebuild_tensor_v2`` with a storage, an offset, a shape and strides;
the storage is a "persistent id" with its type, key and length, and its numbers stand elsewhere in the file. The machine
makes a TorchTensor of that, whose numbers nobody has looked at yet. The other names that it admits are those that plain data
beside the weights is pickled with.
"""

import math
from dataclasses import dataclass
from typing import IO, Any

from ...data.pickles.arrays import ArrayMachine, is_shape, word
from ...data.pickles.machine import DAMAGED, Name, UnpicklingError, checked_key, short
from ...errors import WeightsError
from ..dtypes import KINDS, damaged, is_possible

STORAGES = {  # class name → dtype
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "UntypedStorage": "uint8",  # of bytes: the tensor says what they are
}
STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
TENSOR = {("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2")}
TENSOR_OF_DTYPE = ("torch._utils", "_rebuild_tensor_v3")
MAKERS = {*TENSOR, TENSOR_OF_DTYPE}
SUBCLASS = ("torch._tensor", "_rebuild_from_type_v2")
PARAMETER = {("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_parameter_with_state")}
PARAMETER_CLASS = ("torch.nn.parameter", "Parameter")
CLASSES = {("torch", "Tensor"), PARAMETER_CLASS}
SIZE, DEVICE = ("torch", "Size"), ("torch", "device")
ORDERED, COUNTER = ("collections", "OrderedDict"), ("collections", "Counter")
DEFAULT = ("collections", "defaultdict")
NAMESPACES = {("argparse", "Namespace"), ("types", "SimpleNamespace")}
SCALAR = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}
BUILTINS = ("builtins", "__builtin__")  # of Python 3 and 2
SETS = {(module, name) for module in BUILTINS for name in ("set", "frozenset")}
BYTEARRAY = {(module, "bytearray") for module in BUILTINS}
TYPES = {(module, name) for module in BUILTINS for name in ("list", "dict", "tuple", "int", "float", "str", "bool")}
REFUSED = {  # known names, and what a file has that needs them
    ("torch._utils", "_rebuild_qtensor"): "a quantised tensor",
    ("torch._utils", "_rebuild_sparse_tensor"): "a sparse tensor",
    ("torch._utils", "_rebuild_nested_tensor"): "a nested tensor",
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): "a tensor without numbers",
}


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers that tensors are views of. key: its name in the file. numel: of elements, from ``start`` on in all that is
    stored under the key, which are ``whole`` elements."""

    key: str
    dtype: str
    numel: int
    start: int
    whole: int


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """A view of a storage. offset, strides: in elements of ``dtype``."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * KINDS[self.dtype].size


class TorchMachine(ArrayMachine):
    """The machine of ``minires.data`` with tensors. Sets become lists, namespaces dicts, devices texts.

    storages: those that were mentioned, by key.
    """

    admitted = ArrayMachine.admitted | {
        *((module, name) for module in STORAGE_MODULES for name in STORAGES),
        *(("torch", dtype) for dtype in KINDS),
        *TENSOR,
        *PARAMETER,
        *CLASSES,
        *NAMESPACES,
        *SCALAR,
        *SETS,
        *BYTEARRAY,
        *TYPES,
        *(TENSOR_OF_DTYPE, SUBCLASS, SIZE, DEVICE, ORDERED, COUNTER, DEFAULT),
    }

    def __init__(self, instructions: int, size: int) -> None:
        super().__init__(instructions, size)
        self.storages: dict[str, Storage] = {}

    def refusal(self, opcode: str, module: str, name: str) -> str:
        if (module, name) in REFUSED:
            return f"{opcode} {module}.{name}: it holds {REFUSED[module, name]}"
        return f"{opcode} asks for {short(f'{module}.{name}')}, which would have to be imported and run"

    # instructions that plain data has, too

    def _inst(self, argument: Any) -> None:
        raise UnpicklingError(self.refusal("INST", *argument.split(" ", 1)))

    _empty_set = ArrayMachine._empty_list
    _additems = ArrayMachine._appends
    _frozenset = ArrayMachine._list

    def _newobj(self, _: object) -> None:
        kind, arguments = self.last(2)
        if type(kind) is not Name or kind not in NAMESPACES or type(arguments) is not tuple or arguments:
            raise UnpicklingError(f"NEWOBJ makes an object of {_described(kind)}")
        self.stack.append({})

    def _binpersid(self, _: object) -> None:
        (identity,) = self.last(1)
        storage = _storage(identity)
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.whole) != (storage.dtype, storage.whole):
            raise UnpicklingError(f"storage {storage.key} has two lengths or dtypes")
        self.stack.append(storage)

    # calls

    def call(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        if function in TENSOR:
            storage, offset, shape, strides, *_ = arguments
            return _tensor(storage, offset, shape, strides)
        if function == TENSOR_OF_DTYPE:
            storage, offset, shape, strides, _, _, dtype, *_ = arguments
            return _tensor(storage, offset, shape, strides, dtype)
        if function == SUBCLASS:
            inner, kind, inner_arguments, _ = arguments
            names = type(inner) is Name and type(kind) is Name
            if not names or inner not in MAKERS or kind not in CLASSES or type(inner_arguments) is not tuple:
                raise UnpicklingError(f"REDUCE makes a tensor of another class, {_described(kind)}")
            return self.call(inner, inner_arguments)
        if function in PARAMETER or function == PARAMETER_CLASS:  # the class itself: before PyTorch 0.4
            if type(arguments[0]) is not TorchTensor:
                raise UnpicklingError("REDUCE makes a parameter of something that is no tensor")
            return arguments[0]
        if function in (ORDERED, COUNTER, DEFAULT):
            return self._dict_of(Name(function), arguments)
        if function in NAMESPACES and not arguments:
            return {}
        if function in SETS or function == SIZE:
            (items,) = arguments
            if type(items) not in (list, tuple):
                raise UnpicklingError(f"REDUCE calls {'.'.join(function)} with a {type(items).__name__}")
            self.spend(len(items))
            return tuple(items) if function == SIZE else list(items)
        if function == DEVICE:
            return word(arguments[0])
        if function in SCALAR:
            dtype, content = arguments
            return self.numbers(content, dtype, (), False).item()
        if function in BYTEARRAY:
            return self.copy(arguments[0]) if arguments else b""
        return super().call(function, arguments)

    def _dict_of(self, function: Name, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        """The dict for a call of one of the dicts of ``collections``."""
        if not arguments or function == DEFAULT:
            return {}
        (items,) = arguments
        if type(items) not in (dict, list):  # a Counter's dict; Python 2 pickled an OrderedDict as pairs
            raise UnpicklingError(f"REDUCE calls {'.'.join(function)} with a {type(items).__name__}")
        self.spend(len(items))
        pairs = items.items() if type(items) is dict else items
        return {checked_key(key): value for key, value in pairs}

    def set_state(self, target: Any, state: Any) -> Any:
        if type(target) is TorchTensor and type(state) is tuple and len(state) == 3:
            return target  # a parameter before PyTorch 0.4: (requires_grad, volatile, hooks)
        if type(target) is not dict:
            return super().set_state(target, state)
        if type(state) is dict and not target:  # a namespace; an OrderedDict's own attributes are of no use
            return state
        return target


def load(machine: TorchMachine, file: IO[bytes], where: str) -> Any:
    """The object in the pickle that begins at the file's position. where: its name in messages. Raises WeightsError."""
    try:
        return machine.run(file)
    except UnpicklingError as error:
        raise WeightsError(
            f"at byte {machine.at:,} of {where}, {error}. minires reads tensors and plain containers, and runs nothing: "
            "where the file was made, write torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    except DAMAGED as error:
        raise damaged(f"{where} is no complete pickle ({short(error)}, at byte {machine.at:,} or after)") from None


def _described(kind: Any) -> str:
    return ".".join(kind) if type(kind) is Name else f"a {type(kind).__name__}"


def _storage(identity: Any) -> Storage:
    """The storage that a persistent id means."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or type(identity[0]) is not str:
        raise UnpicklingError("BINPERSID names something that is no storage")
    if identity[0] != "storage":
        raise UnpicklingError("BINPERSID names something that is no storage")
    _, kind, key, _, numel, *view = identity
    if type(kind) is not Name or kind[0] not in STORAGE_MODULES or kind[1] not in STORAGES:
        raise UnpicklingError(f"BINPERSID names a storage that is {_described(kind)}")
    if type(key) is not str or len(key) > 100:
        raise UnpicklingError("BINPERSID names a storage without a proper key")
    if not _is_whole(numel):
        raise UnpicklingError("BINPERSID names a storage without a proper length")
    if not view or view[0] is None:
        return Storage(key, STORAGES[kind[1]], numel, 0, numel)
    _, start, length = view[0]  # legacy files: a part of another storage
    if not _is_whole(start) or not _is_whole(length) or start + length > numel:
        raise UnpicklingError(f"the view of storage {key} reaches beyond it")
    return Storage(key, STORAGES[kind[1]], length, start, numel)


def _is_whole(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**60


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any = None) -> TorchTensor:
    """The tensor of these arguments, if it lies within its storage and has each element of it once at most."""
    if type(storage) is not Storage or not _is_whole(offset):
        raise UnpicklingError("REDUCE makes a tensor without a proper storage and offset")
    if not is_shape(shape) or not is_shape(strides) or len(shape) != len(strides) or not is_possible(shape):
        raise UnpicklingError("REDUCE makes a tensor without a proper shape and strides")
    name, numel = storage.dtype, storage.numel
    if dtype is not None:  # of a storage of bytes
        if type(dtype) is not Name or dtype[1] not in KINDS or storage.dtype != "uint8":
            raise UnpicklingError(f"REDUCE makes a tensor of dtype {_described(dtype)}")
        name, numel = dtype[1], numel // KINDS[dtype[1]].size
    tensor = TorchTensor(storage, name, offset, shape, strides)
    if tensor.numel:
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
        if last >= numel:
            raise UnpicklingError(
                f"a tensor of shape {shape} reaches to element {last:,} of storage {storage.key}, which has {numel:,}"
            )
        if _overlaps(shape, strides):
            raise UnpicklingError(
                f"a tensor of shape {shape} and strides {strides} has elements of its storage more than once "
                "(.contiguous() before saving makes it an ordinary one)"
            )
    return tensor


def _overlaps(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether two indices may mean the same element: not if each axis steps over all that the faster ones reach."""
    reached = 0
    for stride, n in sorted((stride, n) for n, stride in zip(shape, strides) if n > 1):
        if stride <= reached:
            return True
        reached += (n - 1) * stride
    return False
