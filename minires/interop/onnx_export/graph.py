"""An ONNX graph as plain Python: nodes and initialisers, whose names are unique. Nothing here needs the package ``onnx``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .trace import Constant, Reference


@dataclass
class Node:
    """One operator. inputs: names of values, "" for one that is left out."""

    kind: str
    name: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


class GraphBuilder:
    """Collects the nodes of a graph. opset: the version of the operators. values: the name of each call's output, by number."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[Node] = []
        self.initializers: dict[str, NDArray[Any]] = {}
        self.values: dict[int, str] = {}
        self._taken: set[str] = set()
        self._named: dict[int, str] = {}  # names of constants, by the id of their array, which a trace keeps
        self._equal: dict[tuple[str, str, tuple[int, ...], bytes], str] = {}

    def unique(self, name: str) -> str:
        """The name, or with a number after it if there is that one already."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found

    def node(self, kind: str, inputs: Sequence[str], path: str, **attributes: Any) -> str:
        """Add a node of the module ``path``; returns the name of its output."""
        output = self.unique(f"{path}/{kind}" if path else kind)
        self.nodes.append(Node(kind, output, list(inputs), output, attributes))
        return output

    def initializer(self, array: ArrayLike, name: str) -> str:
        """Add an array; returns its name. Equal arrays that are to have the same name are one."""
        array = np.asarray(array)
        key = name, array.dtype.name, array.shape, hashlib.sha256(array.tobytes()).digest()
        if key not in self._equal:
            self._equal[key] = name = self.unique(name)
            self.initializers[name] = array
        return self._equal[key]

    def integers(self, values: Sequence[int], name: str) -> str:
        """Add a list of integers, such as axes."""
        return self.initializer(np.array(values, np.int64), name)

    def reference(self, reference: Reference, path: str) -> str:
        """The name of a call's input."""
        if not isinstance(reference, Constant):
            return self.values[reference]
        key = id(reference.array)
        if key not in self._named:
            self._named[key] = self.initializer(
                reference.array, reference.name or (f"{path}/constant" if path else "constant")
            )
        return self._named[key]

    def rename(self, before: str, after: str) -> None:
        """Give a value, such as an output of the graph, another name."""
        for node in self.nodes:
            node.inputs = [after if name == before else name for name in node.inputs]
            node.output = after if node.output == before else node.output
