"""The forward pass of a network as a list of calls of operations, from which an ONNX graph is made.

The network runs twice, in evaluation mode and operation by operation, on images of other numbers and values (and, if the size
is to be free, of another size). What is the same in both passes belongs to the network. Whatever differs depends on the images,
and is written so that it goes on to do so, or is refused: a batch size that hides in a reshape, a constant computed from
pixels, a loop over the images.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ExportError
from ...grad_mode import no_grad, set_watcher
from ...nn import Module
from ...tensor import Op, Tensor

INPUT = -1  # the number of the images among the outputs of calls
Shape = tuple[int, ...]


@dataclass(eq=False)
class Constant:
    """An array that does not follow from the images. name: that of a parameter in the ``state_dict``, or ""."""

    array: NDArray[Any]
    name: str = ""


Reference = int | Constant  # the number of the call whose output it is, INPUT, or a constant


@dataclass(eq=False)
class Call:
    """One call of an operation.

    name: the operation's, for messages; path: the module that called it; settings: attributes of the Op; shapes: those of the
    inputs; shape: that of the output; twin: the same call in the other pass.
    """

    op: type[Op]
    name: str
    path: str
    settings: dict[str, Any]
    inputs: list[Reference]
    shapes: list[Shape]
    shape: Shape
    twin: Call = field(init=False)

    @property
    def where(self) -> str:
        """The operation and its place, for messages."""
        return f"{self.name} in {self.path or 'the network'}"

    def both(self, name: str) -> tuple[Any, Any]:
        """A setting in the two passes."""
        return self.settings[name], self.twin.settings[name]


@dataclass
class Trace:
    """The calls of a forward pass, in order; the outputs, by number; and the outputs' shapes."""

    calls: list[Call]
    outputs: list[int]
    shapes: list[Shape]


def trace(
    model: Module, attributes: Mapping[type[Op], Sequence[str]], shapes: tuple[Shape, Shape]
) -> tuple[Trace, list[Shape]]:
    """The trace of a network for images of the first shape (N, C, H, W), and the outputs' shapes for those of the second.

    attributes: for each operation that has a counterpart, the attributes that hold its settings. Raises ExportError for another
    operation, for what no list of calls can stand for, and what the network raises for images of this size.
    """
    first, second = (_run(model, attributes, shape, seed) for seed, shape in enumerate(shapes))
    if [(c.op, c.path) for c in first.calls] != [
        (c.op, c.path) for c in second.calls
    ] or first.outputs != second.outputs:
        raise ExportError(
            f"{type(model).__name__} computes other operations for other images, as by an `if` or a loop that depends on them: "
            "ONNX has one graph for all"
        )
    for a, b in zip(first.calls, second.calls):
        if not all(map(_same_reference, a.inputs, b.inputs)):
            raise ExportError(
                f"{a.where} takes an array that follows from the images, or from their number, and was made by other than "
                "minires' functions: ONNX would have it fixed"
            )
        a.twin, b.twin = b, a
    return first, second.shapes


def _same_reference(a: Reference, b: Reference) -> bool:
    if isinstance(a, Constant) and isinstance(b, Constant):
        return same(a.array, b.array)
    return a is b or (isinstance(a, int) and a == b)


def same(a: Any, b: Any) -> bool:
    """Whether two settings are equal: arrays, and tuples and lists of them, element by element."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is b or (
            np.shape(a) == np.shape(b) and np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")
        )
    if isinstance(a, tuple | list) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _run(model: Module, attributes: Mapping[type[Op], Sequence[str]], shape: Shape, seed: int) -> Trace:
    x = Tensor(np.random.default_rng(seed).standard_normal(shape, np.float32))
    recorder = _Recorder(model, attributes, x)
    with evaluating(model), no_grad():
        before = set_watcher(recorder)  # which also makes operations run one by one, not fused
        try:
            y = model(x)
        finally:
            set_watcher(before)
        tensors = list(y) if isinstance(y, list | tuple) else [y]
        if not tensors or not all(isinstance(t, Tensor) for t in tensors):
            raise ExportError(
                f"{type(model).__name__} returns {type(y).__name__}, where a Tensor or a list of Tensors can be exported"
            )
        outputs = [recorder.reference(t) for t in tensors]
    numbers = [number for number in outputs if isinstance(number, int)]
    if len(numbers) < len(outputs):
        raise ExportError(f"what {type(model).__name__} returns does not follow from the images by minires' functions")
    return Trace(recorder.calls, numbers, [t.shape for t in tensors])


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode in the block; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Recorder:
    """Notes every operation that is called. (The tape and modules call the methods without an underscore.)"""

    def __init__(self, model: Module, attributes: Mapping[type[Op], Sequence[str]], x: Tensor) -> None:
        self.attributes = attributes
        self.paths = {id(m): path for path, m in model.named_modules()}
        self.modules: list[str] = []
        self.calls: list[Call] = []
        # Tensors are known by their arrays, which those of detach() share. An output that is not needed any more is let go of.
        self.outputs: dict[int, tuple[weakref.ref[NDArray[Any]], int]] = {id(x.data): (weakref.ref(x.data), INPUT)}
        self.constants = {id(p.data): Constant(p.data, name) for name, p in model.named_parameters()}

    def enter(self, module: Module) -> None:
        self.modules.append(self.paths.get(id(module), ""))

    def leave(self) -> None:
        self.modules.pop()

    def forward(self, op: Op, inputs: Sequence[Tensor], y: Tensor) -> None:
        references = [self.reference(x) for x in inputs]
        if all(isinstance(x, Constant) for x in references):
            return  # y is a constant too
        path = next((path for path in reversed(self.modules) if path), "")
        if type(op) not in self.attributes:
            raise ExportError(f"{op.name} in {path or 'the network'} has no counterpart in ONNX")
        settings = {name: getattr(op, name) for name in self.attributes[type(op)]}
        call = Call(type(op), op.name, path, settings, references, [x.shape for x in inputs], y.shape)
        self.outputs[id(y.data)] = weakref.ref(y.data), len(self.calls)
        self.calls.append(call)

    def reference(self, x: Tensor) -> Reference:
        """The call that made x, or x as a constant."""
        array = x.data
        known, number = self.outputs.get(id(array), (None, 0))
        if known is not None and known() is array:
            return number
        return self.constants.setdefault(id(array), Constant(array))
