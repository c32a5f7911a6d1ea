"""Kinks: where a function has a corner, two slopes are right, and a central difference gives neither.

Each operation with corners keeps which branch every element took: the sign of relu's input, the argmax of a pooling. When
the branches at x − h and at x + h differ, a corner lies between. They are read from the graph that the evaluation records.
"""

import numpy as np

from ..ops.activation import AddReLU, LeakyReLU, ReLU
from ..ops.arithmetic import Abs, Clip
from ..ops.pooling import MaxPool2d
from ..ops.reduction import Max
from ..tensor import topological_order

BRANCHES = {  # operation -> the branch that each element took in the last forward pass
    ReLU: lambda op: op.y > 0,
    AddReLU: lambda op: op.y > 0,
    LeakyReLU: lambda op: op.x > 0,
    Abs: lambda op: op.x > 0,
    Clip: lambda op: op.inside,
    MaxPool2d: lambda op: op.index,
    Max: lambda op: op.mask,
}


def operations(outputs):
    """The operations above these Tensors, each once, inputs before outputs."""
    return [y.op for y in topological_order(outputs) if y.op is not None]


def branches(outputs):
    """[(operation's name, branches)] of every operation with corners. An op of one's own has a method ``branches()``."""
    found = []
    for op in operations(outputs):
        read = next((BRANCHES[kind] for kind in type(op).__mro__ if kind in BRANCHES), None)
        if read is not None:
            found.append((op.name, read(op)))
        elif hasattr(op, "branches"):
            found.append((op.name, np.array(op.branches())))
    return found


def flips(below, above):
    """{operation's name: how many of its elements took another branch}; empty where no corner lies between."""
    if [(name, b.shape) for name, b in below] != [(name, b.shape) for name, b in above]:
        return {"control flow": 1}  # another graph altogether
    counts = {}
    for (name, a), (_, b) in zip(below, above):
        changed = int(np.count_nonzero(a != b))
        if changed:
            counts[name] = counts.get(name, 0) + changed
    return counts
