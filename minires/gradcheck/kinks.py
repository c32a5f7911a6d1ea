"""Kinks: corners of a function, where it has a slope on each side, and a central difference gives neither.

An operation with kinks keeps which branch every element took: the sign of relu's input, the argmax of a pooling. When the
branches at x − h and at x + h differ, a kink lies between. They are read from the graph that an evaluation records.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ops.activation import AddReLU, LeakyReLU, ReLU
from ..ops.arithmetic import Abs, Clip
from ..ops.pooling import MaxPool2d
from ..ops.reduction import Max
from ..tensor import Op, Tensor, topological_order

BRANCHES: dict[
    type, Callable[[Any], NDArray]
] = {  # operation -> the branch that each element took in the last forward pass
    ReLU: lambda op: op.y > 0,
    AddReLU: lambda op: op.y > 0,
    LeakyReLU: lambda op: op.x > 0,
    Abs: lambda op: op.x > 0,
    Clip: lambda op: op.inside,
    MaxPool2d: lambda op: op.index,
    Max: lambda op: op.mask,
}


def operations(outputs: Sequence[Tensor]) -> list[Op]:
    """The operations that these Tensors were computed by, each once, inputs before outputs."""
    return [y.op for y in topological_order(outputs) if y.op is not None]


def branches(outputs: Sequence[Tensor]) -> list[tuple[str, NDArray]]:
    """[(operation's name, branches)] of every operation with kinks. A user's own Op may have a method ``branches()``."""
    found = []
    for op in operations(outputs):
        read = next((BRANCHES[kind] for kind in type(op).__mro__ if kind in BRANCHES), None)
        if read is not None:
            found.append((op.name, read(op)))
        elif hasattr(op, "branches"):
            found.append((op.name, np.array(op.branches())))
    return found


def flips(below: list[tuple[str, NDArray]], above: list[tuple[str, NDArray]]) -> dict[str, int]:
    """{operation's name: the number of its elements that took another branch}; empty where no kink lies between."""
    if [(name, b.shape) for name, b in below] != [(name, b.shape) for name, b in above]:
        return {"control flow": 1}  # the function recorded a different graph
    counts: dict[str, int] = {}
    for (name, a), (_, b) in zip(below, above):
        changed = int(np.count_nonzero(a != b))
        if changed:
            counts[name] = counts.get(name, 0) + changed
    return counts
