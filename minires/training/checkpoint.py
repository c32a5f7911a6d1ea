"""Checkpoints: safetensors files, written so that a crash at any moment leaves the old file or the new one, whole.

Model weights stand under their plain names (torchvision's), so that any reader of safetensors can use them. The state
of the optimizer stands under ``optimizer/``, a batch that is kept for replay under ``batch/``. Everything that is no
array (which epoch, the recipe) is JSON in the one metadata entry ``minires``: with more than one entry safetensors writes
them in random order, and two equal checkpoints would differ as files. Nothing is ever pickled.

First in that JSON stands the SHA-256 sum of the whole file with 64 zeros in the sum's place, so that a byte that changed
anywhere, be it in the header, the weights or the sum itself, is noticed.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import DataError
from ..files import atomic_write

PARTS = ("optimizer", "batch")  # the prefixes of every array that is not one of the model's
BEFORE_SUM = b'{"__metadata__":{"minires":"{\\"checksum\\": \\"'  # how the header begins, eight bytes into the file
SUM = slice(8 + len(BEFORE_SUM), 8 + len(BEFORE_SUM) + 64)


@dataclass
class Checkpoint:
    """What a run needs to go on, or a model to be used.

    model: the model's ``state_dict()``. optimizer: its ``state_dict()``, nested dicts and lists of ndarrays and plain
    values. info: plain values: the recipe, epoch, step, the schedule's state, minires_version and more (``run.py``).
    batch: arrays and plain values of a batch to be replayed (``replay.py``).
    """

    model: dict
    optimizer: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    batch: dict = field(default_factory=dict)

    def save(self, path):
        """Write the file, atomically. Equal checkpoints give equal bytes."""
        arrays = {}
        trees = {part: _split(getattr(self, part), part, arrays) for part in PARTS if getattr(self, part)}
        clash = sorted(set(arrays) & set(self.model))
        if clash:
            raise DataError(
                f"{path}: the model's weight {clash[0]} has a name that belongs to the optimizer or a batch"
            )
        arrays.update(self.model)
        # safetensors copies raw memory, so that anything but C order would be scrambled. asarray keeps 0-d arrays 0-d.
        arrays = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
        content = {"checksum": "0" * 64, "info": {**self.info, **trees}}
        info = json.dumps(content, sort_keys=True, ensure_ascii=False)
        data = bytearray(save(arrays, metadata={"minires": info}))
        data[SUM] = _sum(data)
        with atomic_write(path) as file:
            file.write(data)

    @classmethod
    def load(cls, path):
        """Read the file. Raises DataError when it is missing, cut off, or any byte of it changed.

        A safetensors file of another program has no checksum: its arrays are the model, and the info is empty.
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
        info = json.loads(header).get("__metadata__", {}).get("minires")
        if info is None and BEFORE_SUM[-16:] not in header:  # no entry of minires, and none whose name has changed
            return cls(arrays)
        if not header.startswith(BEFORE_SUM) or data[SUM] != _sum(data):
            raise DataError(f"{path} was changed after it was written: its checksum is not right. {_way_out(path)}")
        info = json.loads(info)["info"]
        model = {name: a for name, a in arrays.items() if name.partition("/")[0] not in PARTS}
        trees = {part: _join(info.pop(part, {}), arrays) for part in PARTS}
        return cls(model, info=info, **trees)


def _sum(data):
    """The SHA-256 sum of a file's bytes, with zeros in the place of the sum."""
    digest = hashlib.sha256(memoryview(data)[: SUM.start])
    digest.update(b"0" * 64)
    digest.update(memoryview(data)[SUM.stop :])
    return digest.hexdigest().encode()


def _way_out(path):
    """What to do about a file that is damaged."""
    last, best = path.with_name("last.safetensors"), path.with_name("best.safetensors")
    if path.name == last.name and best.is_file():
        return f"Copy {best} over it to go on from there"
    if path.name == best.name and last.is_file():
        return f"Take {last}, the latest one, in its place"
    if path.name == last.name and path.with_name("config.toml").is_file():
        return f"Delete it, and `minires train --resume {path.parent}` does the run again from its beginning"
    return "Take another copy of it, or do its run again"


def _split(tree, name, arrays):
    """The tree in JSON's types, each ndarray moved into ``arrays`` and replaced by {"array": its name there}."""
    if isinstance(tree, np.ndarray):
        arrays[name] = tree
        return {"array": name}
    if isinstance(tree, dict):
        return {"dict": [[key, _split(value, f"{name}/{key}", arrays)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {"list": [_split(value, f"{name}/{i}", arrays) for i, value in enumerate(tree)]}
    return {"value": tree.item() if isinstance(tree, np.generic) else tree}


def _join(tree, arrays):
    """The inverse of ``_split``; a tuple comes back as a list, and a dict's integer keys as integers."""
    if not tree:
        return {}
    [(kind, content)] = tree.items()
    if kind == "array":
        return arrays[content]
    if kind == "dict":
        return {key: _join(value, arrays) for key, value in content}
    if kind == "list":
        return [_join(value, arrays) for value in content]
    return content
