"""What a checkpoint says besides its arrays: JSON, and trees with arrays in them, checked by type and range before use.

A checksum tells of accidents; a file that was made to do harm has the right one. All errors are CheckpointErrors that name
the entry and what was found there; ``Checkpoint`` adds the file and the way out.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, brief
from ..optim.muon import MOST_STEPS
from .recipe import MOST, is_real

Tree = dict[str, Any]


class Rule(NamedTuple):
    """A test of a value, and in words what passes it."""

    passes: Callable[[Any], bool]
    words: str


def _whole(least: int = 0, most: int = MOST) -> Rule:
    def passes(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return Rule(passes, f"a whole number from {least} to {most}")


def _real(least: float = -math.inf, most: float = math.inf) -> Rule:
    def passes(value: Any) -> bool:
        return is_real(value) and least <= value <= most

    if math.isinf(most):
        return Rule(passes, "a number" if math.isinf(least) else f"a number from {least:g} up")
    return Rule(passes, f"a number from {least:g} to {most:g}")


def _list(rule: Rule, length: int | None = None) -> Rule:
    def passes(value: object) -> bool:
        return isinstance(value, list) and len(value) == (length or len(value)) and all(map(rule.passes, value))

    return Rule(passes, f"a list of {f'{length} times ' if length else ''}{rule.words}")


def _array(kinds: str, words: str) -> Rule:
    return Rule(lambda value: isinstance(value, np.ndarray) and value.dtype.kind in kinds, f"an array of {words}")


TEXT = Rule(lambda value: isinstance(value, str), "a text")
TABLE = Rule(lambda value: isinstance(value, dict), "a table")
FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
ARRAY = _array("fiub", "real numbers")

RANDOM = {  # as minires.random.get_rng_state returns it
    "bit_generator": Rule(lambda value: value == "PCG64", "'PCG64'"),
    "state": {"state": _whole(0, 2**128 - 1), "inc": _whole(0, 2**128 - 1)},
    "has_uint32": _whole(0, 1),
    "uinteger": _whole(0, 2**32 - 1),
}
MEAN = {"total": _real(), "correct": _whole(), "images": _whole()}
SCHEDULE = {"position": _whole(0, MOST**2), "base_lrs": _list(_real(0))}
ERROR_WARMUP = {"warm": FLAG, "recent": _list(_real(0, 1))}  # what its state has more
INFO: dict[str, Rule | Tree] = {
    "epoch": _whole(),
    "step": _whole(0, MOST**2),
    "progress": {"batches": _whole(1), "lr": _real(0), "seconds": _real(1e-9, 1e12), "mean": MEAN},
    "schedule": TABLE,
    "random": RANDOM,
    "data": _list(_whole(0, 2**32 - 1), 2),
    "best_val_acc": _real(0, 1),
    "recipe": TABLE,
    "num_classes": _whole(1),
    "classes": _list(TEXT),
    "mean": _list(_real()),
    "std": _list(_real(1e-30)),
    "image_size": _whole(1),
    "minires_version": TEXT,
    "target": TEXT,
}
NULLABLE = ("progress", "schedule", "best_val_acc")
GROUP = {  # the settings of all optimizers
    "lr": _real(0),
    "initial_lr": _real(0),
    "momentum": _real(0, 1),
    "weight_decay": _real(0),
    "nesterov": FLAG,
    "betas": _list(_real(0, 1), 2),
    "eps": _real(0),
    "ns_steps": _whole(1, MOST_STEPS),
    "scale": TEXT,
    "normalize": FLAG,
    "params": _list(_whole()),
}
STATE = {  # of a parameter, of all optimizers
    "momentum_buffer": _array("f", "real numbers"),
    "exp_avg": _array("f", "real numbers"),
    "exp_avg_sq": _array("f", "real numbers"),
    "step": _whole(),
}
BATCH = {
    "images": _array("f", "real numbers"),
    "labels": _array("iu", "whole numbers"),
    "random": RANDOM,
    "label_smoothing": _real(0, 1),
    "training": FLAG,
}


def parse(text: str | bytes) -> Any:
    """The value of a JSON text. Raises CheckpointError for what is not JSON, or not what Checkpoint.save writes.

    That is: a key that comes twice, a number that is not finite, nesting or digits beyond Python's limits.
    """
    try:
        return json.loads(text, object_pairs_hook=_table, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise CheckpointError("its metadata is nested too deep") from None
    except ValueError as error:  # CheckpointError too
        raise CheckpointError(str(error) if isinstance(error, CheckpointError) else f"not JSON: {error}") from None


def _table(pairs: list[tuple[str, Any]]) -> Tree:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise CheckpointError(f"the key {brief(twice)} is there twice")
    return table


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise CheckpointError(f"the number {text[:40]} is not finite")
    return value


def check_info(info: Tree) -> None:
    """Check those entries of ``Checkpoint.info`` that minires knows."""
    for name, rule in INFO.items():
        if name in info and not (info[name] is None and name in NULLABLE):
            _check(info[name], rule, name)
    schedule = info.get("schedule")
    if schedule is not None:
        _check(schedule, SCHEDULE | ERROR_WARMUP if "warm" in schedule else SCHEDULE, "schedule")
    progress = info.get("progress")
    if progress and progress["mean"]["correct"] > progress["mean"]["images"]:
        raise CheckpointError(f"progress.mean.correct is {progress['mean']['correct']}, more than progress.mean.images")


def check_optimizer(optimizer: object) -> None:
    """Check the types and ranges in ``Checkpoint.optimizer``, of which parts may be missing."""
    _check(optimizer, TABLE, "optimizer")
    assert isinstance(optimizer, dict)
    _check(optimizer.get("state", {}), TABLE, "optimizer.state")
    for i, entry in optimizer.get("state", {}).items():
        _check(i, _whole(), "a parameter's number in optimizer.state")
        _check(entry, TABLE, f"optimizer.state.{i}")
        rules = {name: STATE[name] for name in STATE.keys() & entry.keys()}
        _check(entry, rules or {"momentum_buffer": STATE["momentum_buffer"]}, f"optimizer.state.{i}")
    groups = optimizer.get("param_groups", [])
    if not isinstance(groups, list):
        raise CheckpointError(f"optimizer.param_groups is {brief(groups)}, not a list")
    for i, group in enumerate(groups):
        _check(group, TABLE, f"optimizer.param_groups.{i}")
        for name in GROUP.keys() & group.keys():
            _check(group[name], GROUP[name], f"optimizer.param_groups.{i}.{name}")


def check_average(average: object) -> None:
    """Check the types in ``Checkpoint.average``, which may be empty."""
    if average != {}:
        _check(average, {"steps": _whole(0, MOST**2), "arrays": TABLE}, "average")
        assert isinstance(average, dict)
        for name, array in average["arrays"].items():
            _check(array, _array("f", "real numbers"), f"average.arrays.{name}")


def check_batch(batch: object, classes: int) -> None:
    """Check that ``Checkpoint.batch`` has the fields of a ``diagnosis.Batch`` for a model with so many classes."""
    _check(batch, BATCH, "batch")
    assert isinstance(batch, dict)
    images, labels = batch["images"], batch["labels"]
    if images.ndim != 4 or not images.size or labels.shape != images.shape[:1]:
        raise CheckpointError(
            f"batch.images is of shape {images.shape} and batch.labels of shape {labels.shape}, not (N, C, H, W) and (N,)"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise CheckpointError(
            f"batch.labels are from {labels.min()} to {labels.max()}, and there are {classes} classes"
        )


def check_arrays(arrays: Mapping[str, NDArray]) -> None:
    """Check that arrays hold real numbers."""
    for name, array in arrays.items():
        _check(array, ARRAY, name)


def require(table: Tree, names: Iterable[str], where: str = "") -> None:
    """Raise CheckpointError when one of the entries is missing."""
    for name in names:
        if name not in table:
            raise CheckpointError(f"{where}{name} is missing")


def require_optimizer(optimizer: Tree) -> None:
    """Raise CheckpointError when something is missing that every optimizer's ``load_state_dict`` needs."""
    require(optimizer, ("state", "param_groups"), "optimizer.")
    for i, group in enumerate(optimizer["param_groups"]):
        require(group, ("lr", "params"), f"optimizer.param_groups.{i}.")


def _check(value: object, rule: Rule | Tree, name: str) -> None:
    """Check a value by a rule, or a table by the rules of its entries, which must be there and no others."""
    if isinstance(rule, Rule):
        if not rule.passes(value):
            found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else brief(value)
            raise CheckpointError(f"{name} is {found}, not {rule.words}")
        return
    _check(value, TABLE, name)
    assert isinstance(value, dict)
    require(value, rule, f"{name}.")
    for key in value:
        if key not in rule:
            raise CheckpointError(f"{name} has an entry {brief(key)} too many")
        _check(value[key], rule[key], f"{name}.{key}")


def split(tree: Any, name: str, arrays: dict[str, NDArray]) -> Tree:
    """A tree of JSON's types: each ndarray is moved into ``arrays`` and replaced by {"array": its name there}."""
    if isinstance(tree, np.ndarray):
        arrays[name] = tree
        return {"array": name}
    if isinstance(tree, dict):
        return {"dict": [[key, split(value, f"{name}/{key}", arrays)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {"list": [split(value, f"{name}/{i}", arrays) for i, value in enumerate(tree)]}
    return {"value": tree.item() if isinstance(tree, np.generic) else tree}


def join(tree: Any, name: str, arrays: Mapping[str, NDArray]) -> Any:
    """The inverse of ``split``, except that tuples become lists. Integer keys of a dict remain integers."""
    if tree == {}:
        return {}
    match tree:
        case {"array": str() as key} if len(tree) == 1 and key == name and key in arrays:
            return arrays[key]
        case {"dict": list() as pairs} if len(tree) == 1 and all(map(_is_pair, pairs)):
            joined = {key: join(value, f"{name}/{key}", arrays) for key, value in pairs}
            if len(joined) == len(pairs):
                return joined
        case {"list": list() as items} if len(tree) == 1:
            return [join(value, f"{name}/{i}", arrays) for i, value in enumerate(items)]
        case {"value": str() | int() | float() | None as value} if len(tree) == 1:
            return value
    raise CheckpointError(
        f"{name.replace('/', '.')} is {brief(tree)}, not an array of the file, a table, a list or a value"
    )


def _is_pair(pair: object) -> bool:
    return (
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int | str) and not isinstance(pair[0], bool)
    )
