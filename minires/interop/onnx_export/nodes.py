"""What each operation of minires is in ONNX. (https://onnx.ai/onnx/operators, the version of opset 21)"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import ExportError
from ...ops import (
    activation,
    arithmetic,
    convolution,
    linear,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
    shortcut,
)
from ...tensor import Op
from .graph import GraphBuilder
from .trace import Call, same

Function = Callable[[GraphBuilder, Call, list[str]], str]
LAST = np.iinfo(np.int64).max  # the end of a slice that has none


class Converter(NamedTuple):
    """attributes: where the Op has its settings. sized: may they depend on the images, which the function then sees to?

    function(graph, call, names of the inputs) adds nodes and returns the name of the output.
    """

    attributes: tuple[str, ...]
    function: Function
    sized: bool


CONVERTERS: dict[type[Op], Converter] = {}


def converts(op: type[Op], *attributes: str, sized: bool = False) -> Callable[[Function], Function]:
    """Register the converter of an Op."""

    def register(function: Function) -> Function:
        CONVERTERS[op] = Converter(attributes, function, sized)
        return function

    return register


def add_call(graph: GraphBuilder, number: int, call: Call) -> None:
    """Add the nodes of the call with this number. Raises ExportError for what ONNX has not."""
    converter = CONVERTERS[call.op]
    if not converter.sized and not all(same(*call.both(name)) for name in converter.attributes):
        raise ExportError(f"{call.where} has settings that depend on the images, such as on their number")
    inputs = [graph.reference(x, call.path) for x in call.inputs]
    graph.values[number] = converter.function(graph, call, inputs)


def _plain(kind: str) -> Function:
    return lambda graph, call, x: graph.node(kind, x, call.path)


for _op, _kind in {
    activation.ReLU: "Relu",
    activation.Sigmoid: "Sigmoid",
    activation.Tanh: "Tanh",
    arithmetic.Abs: "Abs",
    arithmetic.Add: "Add",
    arithmetic.Div: "Div",
    arithmetic.Exp: "Exp",
    arithmetic.Log: "Log",
    arithmetic.Mul: "Mul",
    arithmetic.Neg: "Neg",
    arithmetic.Pow: "Pow",
    arithmetic.ResidualAdd: "Add",
    arithmetic.Sqrt: "Sqrt",
    arithmetic.Sub: "Sub",
    linear.MatMul: "MatMul",
}.items():
    converts(_op)(_plain(_kind))


# --- layers


@converts(convolution.Conv2d, "geometry")
def _conv2d(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    stride, padding, dilation, groups = call.settings["geometry"]
    return graph.node(
        "Conv",
        x,
        call.path,
        kernel_shape=call.shapes[1][2:],
        strides=stride,
        pads=(*padding, *padding),
        dilations=dilation,
        group=groups,
    )


@converts(normalization.BatchNorm, "fixed", "eps")
def _batch_norm(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    mean, var = call.settings["fixed"]
    if mean is None:
        raise ExportError(
            f"{call.where} normalises by the statistics of the batch, which has no counterpart in ONNX: "
            "track_running_stats=True has those of training"
        )
    names = [f"{call.path}.{name}" if call.path else name for name in ("running_mean", "running_var")]
    statistics = [graph.initializer(array, name) for array, name in zip((mean, var), names)]
    return graph.node("BatchNormalization", [*x, *statistics], call.path, epsilon=call.settings["eps"])


@converts(linear.Linear)
def _linear(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    if len(call.shapes[0]) == 2:
        return graph.node("Gemm", x, call.path, transB=1)
    weight = graph.node("Transpose", [x[1]], call.path, perm=(1, 0))
    y = graph.node("MatMul", [x[0], weight], call.path)
    return graph.node("Add", [y, x[2]], call.path) if len(x) > 2 else y


def _pool(graph: GraphBuilder, call: Call, x: list[str], kind: str, **more: Any) -> str:
    """A pooling over windows, or, where the window is the whole image in both passes, over images of any size."""
    first, second = call.both("geometry")
    padding, whole = first[2], [call.shapes[0][2:], call.twin.shapes[0][2:]]
    if [first[0], second[0]] == whole and padding == (0, 0):
        return graph.node(f"Global{kind}", x, call.path)
    if first != second:
        raise ExportError(f"{call.where} has windows that depend on the size of the images, and that is to be free")
    return graph.node(kind, x, call.path, kernel_shape=first[0], strides=first[1], pads=(*padding, *padding), **more)


@converts(pooling.MaxPool2d, "geometry", sized=True)
def _max_pool2d(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return _pool(graph, call, x, "MaxPool", dilations=call.settings["geometry"][3])


@converts(pooling.AvgPool2d, "geometry", sized=True)
def _avg_pool2d(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return _pool(graph, call, x, "AveragePool", count_include_pad=int(call.settings["geometry"][3]))


@converts(shortcut.ZeroPadShortcut, "settings")
def _zero_pad_shortcut(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    stride, before, after = call.settings["settings"]
    y = x[0]
    if stride > 1:
        y = _slices(graph, call.path, y, {2: slice(None, None, stride), 3: slice(None, None, stride)})
    return _padded(graph, call.path, y, [(0, 0), (before, after), (0, 0), (0, 0)], 0)


@converts(resize.Interpolate, "size", "scale", "mode", "align_corners", sized=True)
def _interpolate(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    """A fixed size, or one that is a multiple of the images'."""
    if graph.opset < 18:
        raise ExportError(f"{call.where} is there in ONNX from opset 18 on, not in {graph.opset}")
    nearest_pixel = call.settings["mode"] == "nearest"
    corners = "align_corners" if call.settings["align_corners"] else "half_pixel"
    attributes: dict[str, Any] = {"axes": (2, 3), "mode": "nearest" if nearest_pixel else "linear"}
    attributes["coordinate_transformation_mode"] = "asymmetric" if nearest_pixel else corners
    if nearest_pixel:
        attributes["nearest_mode"] = "floor"
    (first, second), (scale, other) = call.both("size"), call.both("scale")
    if None not in scale and scale == other:
        scales = graph.initializer(np.array(_scales(call), np.float32), "scales")
        return graph.node("Resize", [x[0], "", scales], call.path, **attributes)
    if first != second:
        raise ExportError(
            f"{call.where} has a size that depends on that of the images: give scale_factor in place of it"
        )
    return graph.node("Resize", [x[0], "", "", graph.integers(first, "sizes")], call.path, **attributes)


def _scales(call: Call) -> list[np.float32]:
    """The factors of the two axes, so rounded that ⌊length·factor⌋ is right for the lengths of both passes.

    ONNX has factors in float32: 0.7 is less than 0.7 there, and 100 pixels would be 69.
    """
    found = []
    for axis, scale in enumerate(call.settings["scale"]):
        lengths = [(c.shapes[0][2 + axis], c.settings["size"][axis]) for c in (call, call.twin)]
        near = np.float32(scale)
        factors = near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(0))
        # ONNX Runtime multiplies in float32, the checker in float64
        right = (f for f in factors if all(int(np.float32(n) * f) == int(n * float(f)) == m for n, m in lengths))
        found.append(next(right, near))
    return found


# --- activations


@converts(activation.AddReLU)
def _add_relu(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return graph.node("Relu", [graph.node("Add", x, call.path)], call.path)


@converts(activation.LeakyReLU, "negative_slope")
def _leaky_relu(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return graph.node("LeakyRelu", x, call.path, alpha=float(call.settings["negative_slope"]))


@converts(activation.GELU, "approximate")
def _gelu(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    if graph.opset < 20:
        raise ExportError(f"{call.where} is there in ONNX from opset 20 on, not in {graph.opset}")
    return graph.node("Gelu", x, call.path, approximate=call.settings["approximate"])


@converts(activation.Softmax, "dim")
def _softmax(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return graph.node("Softmax", x, call.path, axis=call.settings["dim"])


@converts(activation.LogSoftmax, "dim")
def _log_softmax(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return graph.node("LogSoftmax", x, call.path, axis=call.settings["dim"])


@converts(arithmetic.Clip, "low", "high")
def _clip(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    y = x[0]
    for kind, bound in (("Max", call.settings["low"]), ("Min", call.settings["high"])):
        if not np.isinf(bound).all():
            y = graph.node(kind, [y, graph.initializer(bound, f"{call.path}/bound".lstrip("/"))], call.path)
    return y if y != x[0] else graph.node("Identity", x, call.path)


@converts(arithmetic.Cast, "dtype")
def _cast(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return graph.node("Cast", x, call.path, to=1 if call.settings["dtype"] == np.float32 else 11)  # FLOAT or DOUBLE


# --- reductions


def _reduction(kind: str) -> Function:
    def convert(graph: GraphBuilder, call: Call, x: list[str]) -> str:
        axes, keepdim = call.settings["axes"], call.settings["keepdim"]
        if not axes:
            return graph.node("Identity", x, call.path)
        return graph.node(kind, [*x, graph.integers(axes, "axes")], call.path, keepdims=int(keepdim))

    return convert


for _reduction_op, _kind in {
    reduction.Sum: "ReduceSum",
    reduction.Mean: "ReduceMean",
    reduction.Max: "ReduceMax",
    reduction.Min: "ReduceMin",
}.items():
    converts(_reduction_op, "axes", "keepdim")(_reduction(_kind))


# --- shapes


@converts(shape.Reshape, sized=True)
def _reshape(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    """The lengths that are the same in both passes are fixed, those that the input has in the same place are copied (0 in
    ONNX), and one more can follow from the number of elements (-1)."""
    before, after = (call.shapes[0], call.twin.shapes[0]), (call.shape, call.twin.shape)
    lengths = []
    for axis, (n, m) in enumerate(zip(*after)):
        copied = axis < len(before[0]) and (n, m) == (before[0][axis], before[1][axis])
        lengths.append(n if n == m else 0 if copied else -1)
    if len(after[0]) != len(after[1]) or lengths.count(-1) > 1:
        raise ExportError(f"{call.where} has more than one length that depends on the images: ONNX can leave one open")
    return graph.node("Reshape", [*x, graph.integers(lengths, "shape")], call.path)


@converts(shape.Permute, "dims")
def _permute(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return graph.node("Transpose", x, call.path, perm=call.settings["dims"])


@converts(shape.ConcatenateChannels, "dim")
@converts(shape.Concatenate, "dim")
def _cat(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return graph.node("Concat", x, call.path, axis=call.settings["dim"])


@converts(shape.Pad, "widths", "value")
def _pad(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    return _padded(graph, call.path, x[0], call.settings["widths"], call.settings["value"])


def _padded(graph: GraphBuilder, path: str, x: str, widths: Sequence[tuple[int, int]], value: float) -> str:
    begins, ends = zip(*widths) if widths else ((), ())
    if not any((*begins, *ends)):
        return graph.node("Identity", [x], path)
    inputs = [x, graph.integers((*begins, *ends), "pads")]
    if value:
        inputs.append(graph.initializer(np.float32(value), "pad_value"))
    return graph.node("Pad", inputs, path)


@converts(shape.Slice, "index")
def _getitem(graph: GraphBuilder, call: Call, x: list[str]) -> str:
    """Slices first, then integers, whose axes go, from the last one on, then None, a new axis."""
    index = call.settings["index"]
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(p is None or p is ... or isinstance(p, slice) or _is_integer(p) for p in parts):
        raise ExportError(f"{call.where} has an array as an index: only integers, slices, None and ... can be exported")
    taken = sum(p is not None and p is not ... for p in parts)
    fill = [slice(None)] * (len(call.shapes[0]) - taken)
    at = next((i for i, p in enumerate(parts) if p is ...), len(parts))
    parts[at : at + 1] = fill
    axes = [p for p in parts if p is not None]  # one for each axis of the input
    y = _slices(graph, call.path, x[0], {i: p for i, p in enumerate(axes) if isinstance(p, slice) and p != slice(None)})
    for axis in reversed([i for i, p in enumerate(axes) if _is_integer(p)]):
        y = graph.node("Gather", [y, graph.initializer(np.int64(axes[axis]), "index")], call.path, axis=axis)
    kept = [p for p in parts if not _is_integer(p)]
    new = [i for i, p in enumerate(kept) if p is None]
    if new:
        y = graph.node("Unsqueeze", [y, graph.integers(new, "axes")], call.path)
    return y if y != x[0] else graph.node("Identity", x, call.path)


def _is_integer(part: Any) -> bool:
    return isinstance(part, numbers.Integral) and not isinstance(part, bool)


def _slices(graph: GraphBuilder, path: str, x: str, slices: dict[int, slice]) -> str:
    """x with slices along some axes; x itself without any."""
    if not slices:
        return x
    rows = []
    for axis, part in slices.items():
        step = 1 if part.step is None else int(part.step)
        start = part.start if part.start is not None else 0 if step > 0 else LAST
        stop = part.stop if part.stop is not None else LAST if step > 0 else -LAST
        rows.append((int(start), int(stop), axis, step))
    names = ("starts", "ends", "axes", "steps")
    return graph.node("Slice", [x, *(graph.integers(v, name) for v, name in zip(zip(*rows), names))], path)
