"""Checkpoints: safetensors files, written atomically (``minires.files``). Nothing is ever pickled.

Model weights have their plain names (torchvision's), so that any reader of safetensors can use them. The optimizer's state
has names that begin with ``optimizer/``, a batch that is kept for replay names that begin with ``batch/``, an average of the
weights names that begin with ``average/``. Everything that is not an array (the epoch, the recipe) is JSON in one metadata
entry, ``minires``: with several entries safetensors would write them in random order, and equal checkpoints would be different
files.

That JSON begins with a sum of the whole file, by which a byte that has changed anywhere is detected
(``interop/checkpoint_layout.py``).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import CheckpointError, DataError
from ..files import atomic_write, command_line
from ..interop.checkpoint_layout import PARTS, SUM, checksum, has_sum, is_model, is_unchanged
from . import metadata


@dataclass
class Checkpoint:
    """All that is needed to resume a run, or to use its model.

    model: the model's ``state_dict()``. optimizer: the optimizer's ``state_dict()``: nested dicts and lists of ndarrays and
    plain values. info: plain values: the recipe, epoch, step, the schedule's state, minires_version and more (``run.py``).
    batch: the fields of a ``diagnosis.Batch`` to be replayed (``replay.py``). average: the state of a WeightAverage, exchanged
    if the averages predict: the model's weights are always those that predict.
    """

    model: dict[str, NDArray]
    optimizer: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Write the file atomically. Equal checkpoints give equal bytes.

        Raises DataError when names of arrays clash, or for values that JSON cannot hold, such as NaN.
        """
        arrays: dict[str, NDArray] = {}
        trees = {part: metadata.split(getattr(self, part), part, arrays) for part in PARTS if getattr(self, part)}
        clash = sorted(set(arrays) & set(self.model))
        if clash:
            raise DataError(
                f"{path}: the model's weight {clash[0]} has a name that belongs to the optimizer or a batch"
            )
        arrays.update(self.model)
        # safetensors copies memory as it is, which is right for C order only. asarray keeps 0-d arrays 0-d.
        arrays = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
        content = {"checksum": "0" * 64, "info": {**self.info, **trees}}
        try:
            info = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
            info.encode()
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: info has a value that a checkpoint cannot hold: {error}") from error
        data = bytearray(save(arrays, metadata={"minires": info}))
        data[SUM] = checksum(data)
        with atomic_write(path) as file:
            file.write(data)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a checkpoint. Raises DataError when it is missing, truncated, or any byte of it has changed; CheckpointError,
        which is one, when its metadata is not what ``save`` writes (``metadata.py``).

        A safetensors file of another program has no checksum: its arrays become ``model``, and ``info`` is empty.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"there is no checkpoint {path}")
        try:
            data = path.read_bytes()
            arrays = load(data)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except (SafetensorError, ValueError, KeyError) as error:
            raise DataError(
                f"{path} ({path.stat().st_size:,} bytes) is cut off or corrupt: {error}. {_way_out(path)}"
            ) from error
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        with _of_file(path):
            entries = metadata.parse(header).get("__metadata__") or {}
        info = entries.get("minires")
        if info is None and not has_sum(data):  # no entry of minires, nor one whose name is damaged
            return cls(arrays)
        if not is_unchanged(data):
            raise DataError(f"{path} was changed after it was written: its checksum is not right. {_way_out(path)}")
        with _of_file(path):
            return cls._parse(info, arrays)

    @classmethod
    def _parse(cls, text: Any, arrays: dict[str, NDArray]) -> Self:
        """The Checkpoint with this metadata and these arrays. Raises CheckpointError."""
        content = metadata.parse(text)
        info = content.get("info") if isinstance(content, dict) else None
        if not isinstance(info, dict):
            raise CheckpointError("it has no table of settings (info)")
        trees = {part: metadata.join(info.pop(part, {}), part, arrays) for part in PARTS}
        model = {name: a for name, a in arrays.items() if is_model(name)}
        metadata.check_arrays(model)
        metadata.check_info(info)
        metadata.check_optimizer(trees["optimizer"])
        metadata.check_average(trees["average"])
        if not isinstance(trees["batch"], dict):
            raise CheckpointError("batch is not a table")
        return cls(model, info=info, **trees)

    def require(self, path: Path, *names: str) -> None:
        """Raise CheckpointError when ``info``, which was read from ``path``, lacks one of the entries."""
        with _of_file(path):
            metadata.require(self.info, names)

    def require_batch(self, path: Path) -> None:
        """Raise CheckpointError unless ``batch``, which was read from ``path``, is complete and fits the model's classes."""
        with _of_file(path):
            metadata.require(self.info, ("num_classes",))
            metadata.check_batch(self.batch, self.info["num_classes"])

    def require_optimizer(self, path: Path) -> None:
        """Raise CheckpointError when ``optimizer``, which was read from ``path``, is not complete."""
        with _of_file(path):
            metadata.require_optimizer(self.optimizer)


@contextmanager
def _of_file(path: Path) -> Iterator[None]:
    """Name the file, and a way out, in a CheckpointError of the block."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path} is not a checkpoint as minires writes it: {error}. {_way_out(path)}") from None
    except RecursionError:
        raise CheckpointError(
            f"{path} is not a checkpoint as minires writes it: it is nested too deep. {_way_out(path)}"
        ) from None


def _way_out(path: Path) -> str:
    """A sentence on what to do about a damaged file."""
    last, best = path.with_name("last.safetensors"), path.with_name("best.safetensors")
    if path.name == last.name and best.is_file():
        return f"Copy {best} over it to go on from there"
    if path.name == best.name and last.is_file():
        return f"Take {last}, the latest one, in its place"
    if path.name == last.name and path.with_name("config.toml").is_file():
        again = command_line("minires", "train", "--resume", path.parent)
        return f"Delete it, and `{again}` does the run again from its beginning"
    return "Take another copy of it, or do its run again"
