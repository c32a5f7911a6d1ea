"""Find the weights in what somebody has saved: by themselves, or in a dict with the epoch, the optimizer and more."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.pickles.machine import short
from ..errors import WeightsError, brief, plural
from .dtypes import KINDS, flat_array, widened
from .readers.torch_pickle import Storage, TorchTensor

# where training scripts put them, the likeliest first; averaged weights come after those that were trained
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
PLACES = (
    *("", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module"),
    *AVERAGED,
)
DEEPEST = 4  # dicts in dicts
MOST_NAMED = 4  # of the other dicts of tensors
TIMES_THE_FILE = 2  # bytes of all different tensors together: more is what no list of weights needs


class Found(NamedTuple):
    """place: keys on the way to it, such as "state_dict", or "". tensors: by name. others: other dicts of tensors there."""

    place: str
    tensors: dict[str, Any]
    others: list[str]


def find(tree: Any) -> Found:
    """The dict of tensors in a tree that is the network's, by where it is and how many it has. Raises WeightsError."""
    tables = dict(_tables(tree))
    counts = {
        path: sum(type(name) is str and _is_tensor(v) and len(v.shape) > 0 for name, v in table.items())
        for path, table in tables.items()
    }
    most = max(counts.values(), default=0)
    likely = [path for path in tables if counts[path] and 2 * counts[path] >= most]
    if not likely:
        raise WeightsError(
            f"it holds no dict of tensors by name, but {_described(tree)}: save model.state_dict(), or a dict that has it as "
            "'state_dict'"
        )
    place = min(likely, key=lambda path: (_rank(path), -counts[path]))
    table = tables[place]
    tensors = {name: value for name, value in table.items() if type(name) is str and _is_tensor(value)}
    others = [short(".".join(path)) for path in likely if path != place]
    return Found(short(".".join(place)), tensors, others[:MOST_NAMED])


def _tables(tree: Any) -> list[tuple[tuple[str, ...], dict[Any, Any]]]:
    """[(keys on the way, dict)] of the dicts in dicts, but for an optimizer's."""
    found, seen = [], set()
    left: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while left:
        path, item = left.pop()
        if type(item) is not dict or id(item) in seen:
            continue
        seen.add(id(item))
        found.append((path, item))
        if len(path) < DEEPEST:
            left.extend(
                ((*path, name), value)
                for name, value in reversed(item.items())
                if type(name) is str and type(value) is dict and not name.startswith("optim")
            )
    return found


def _is_tensor(value: Any) -> bool:
    return isinstance(value, TorchTensor | np.ndarray)


def _rank(path: tuple[str, ...]) -> int:
    """How unlikely a place is, by its last key; what lies within averaged weights is averaged, too."""
    *above, place = path or ("",)
    averaged = [PLACES.index(key) for key in above if key in AVERAGED]
    return max([PLACES.index(place) if place in PLACES else len(PLACES), *averaged])


def _described(tree: Any) -> str:
    if type(tree) is dict:
        return f"a dict with {brief(list(tree)[:6])}" if tree else "an empty dict"
    return "a tensor" if _is_tensor(tree) else f"a {type(tree).__name__}"


def arrays(
    tensors: dict[str, Any], storage: Callable[[Storage], memoryview], byteorder: str, size: int
) -> dict[str, NDArray]:
    """The arrays of these tensors; views of a storage remain such, and tensors that are one remain one.

    storage: gives the bytes of a storage. size: of the file, in bytes. Raises WeightsError for a dtype that is refused, and
    for more bytes in all than a file of this size needs.
    """
    made: dict[Any, NDArray] = {}
    left = TIMES_THE_FILE * size
    result = {}
    for name, tensor in tensors.items():
        key = tensor if isinstance(tensor, TorchTensor) else id(tensor)
        if key not in made:
            left -= tensor.nbytes
            if left < 0:
                raise WeightsError(
                    f"its {plural(len(tensors), 'tensor')} have more than {TIMES_THE_FILE} times the bytes of the file"
                )
            try:
                made[key] = _array(tensor, storage, byteorder)
            except WeightsError as error:
                raise WeightsError(f"{brief(name)}: {error}") from None
        result[name] = made[key]
    return result


def _array(tensor: TorchTensor | NDArray, storage: Callable[[Storage], memoryview], byteorder: str) -> NDArray:
    if isinstance(tensor, np.ndarray):  # which stood in the pickle itself
        return widened(tensor, tensor.dtype.name)
    if not tensor.numel:
        return np.zeros(tensor.shape, widened(flat_array(memoryview(b""), tensor.dtype), tensor.dtype).dtype)
    base, size = tensor.storage, KINDS[tensor.dtype].size
    unit = KINDS[base.dtype].size  # that of the tensor, unless the storage is one of bytes
    content = storage(base)[base.start * unit : (base.start + base.numel) * unit]
    flat = flat_array(content[: len(content) // size * size], tensor.dtype, byteorder)[tensor.offset :]
    strides = tuple(stride * size for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
    return widened(view, tensor.dtype)
