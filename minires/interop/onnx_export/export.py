"""Write a network as an ONNX file."""

from __future__ import annotations

import json
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data import Normalization
from ...errors import ConfigError, DtypeError, ExportError
from ...files import atomic_write
from ...nn import Conv2d, Module
from ...version import __version__
from .check import compare
from .file import Images, dims_of, protobuf, require_onnx
from .fold import fold_batch_norms
from .graph import GraphBuilder
from .nodes import CONVERTERS, add_call
from .trace import INPUT, Trace, trace

OPSET = 21  # of March 2024, which ONNX Runtime has since 1.20
MOST_PIXELS = 2048  # of a side: more need dynamic_size, since the network runs on the images
OPSETS = range(18, OPSET + 1)  # 18 is the first in which all reductions take their axes as an input
MOST = (1 << 31) - 1  # bytes of a protobuf message


@dataclass(frozen=True)
class OnnxFile:
    """What ``export_onnx`` has written.

    nodes: the number of operators; input, output: their shapes in words, and the outputs' names; difference: the largest
    between minires' and ONNX Runtime's outputs, as a part of the largest output (or of 1); None where ONNX Runtime is not
    installed.
    """

    path: Path
    size: int
    opset: int
    ir_version: int
    nodes: int
    input: str
    output: str
    difference: float | None


def export_onnx(
    model: Module,
    path: Path | str,
    *,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    dynamic_size: bool = False,
    fold_batch_norm: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    with_normalization: bool = False,
    softmax: bool = False,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    opset: int = OPSET,
) -> OnnxFile:
    """Write a network, as it is in evaluation mode, as an ONNX file. Atomic. Needs the package ``onnx``.

    The input ``input`` is (batch, in_channels, height, width), float32, for any batch size; the output ``logits`` is
    (batch, classes). A network that returns several tensors has an output for each.

    image_size: a side, or (height, width); by default the network's. in_channels: by default those of its first convolution.
    dynamic_size: height and width are free too. fold_batch_norm: batch norms become part of the convolutions before them; else
    all initialisers have the names of the ``state_dict``. mean, std: of the images that it was trained on, of pixels in [0, 1],
    for the metadata. with_normalization: the graph itself subtracts and divides by them, and its input is pixels in [0, 1].
    softmax: the output, of a classifier, is ``probabilities``. class_names: for the metadata, where the model's name, the image
    size and the version of minires are too; lists are JSON.

    The file is checked by ``onnx.checker``, and where ONNX Runtime is installed its outputs are compared with the network's, of
    1 and of 7 random images. Raises ExportError for a network that ONNX has no graph for, or that the two do not agree on;
    ConfigError for settings that do not go together, or without ``onnx``; OSError when the file cannot be written.
    """
    means, stds = (() if values is None else tuple(values) for values in (mean, std))
    normalization = Normalization(means, stds) if means or stds else None
    images = _images(model, image_size, in_channels, dynamic_size, normalization if with_normalization else None)
    _check_settings(model, normalization, images, with_normalization, opset)
    attributes = {op: converter.attributes for op, converter in CONVERTERS.items()}
    traced, other_shapes = trace(model, attributes, images.shapes)
    names = _output_names(model, traced, softmax)
    if class_names is not None and traced.shapes[0][1:] != (len(class_names),):
        found = _words(["batch", *traced.shapes[0][1:]])
        raise ConfigError(f"there are {len(class_names)} names of classes, and the network's output is {found}")
    graph = _graph(traced, fold_batch_norm, images, softmax, names, opset)
    size = sum(array.nbytes for array in graph.initializers.values())
    if size > MOST - (1 << 20):
        raise ExportError(
            f"the weights are {size:,} bytes, and an ONNX file holds 2 GB at most: save them as safetensors"
        )
    metadata = {
        "model": name or type(model).__name__,
        "input": f"{'RGB ' * (images.channels == 3)}pixels in [0, 1]{'' if images.normalization else ', normalised'}",
        "image_size": json.dumps(images.size[0] if images.size[0] == images.size[1] else images.size),
        "minires_version": __version__,
    }
    if class_names is not None:
        metadata["classes"] = _json_of(class_names)
    if normalization is not None:
        metadata |= {"mean": json.dumps(normalization.mean), "std": json.dumps(normalization.std)}
    dims = [dims_of(name, a, b, images) for name, a, b in zip(names, traced.shapes, other_shapes)]
    outputs = dict(zip(names, dims))
    content = protobuf(require_onnx(), graph, images, outputs, metadata, opset)
    data = content.SerializeToString()
    difference = compare(model, data, images, softmax)
    with atomic_write(path) as file:
        file.write(data)
    ins, outs = _words(images.dims), ", ".join(f"{name} {_words(shape)}" for name, shape in outputs.items())
    return OnnxFile(Path(path), len(data), opset, content.ir_version, len(graph.nodes), ins, outs, difference)


def _words(dims: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, dims))})"


def _json_of(names: Sequence[str]) -> str:
    """A list of names as JSON; in ASCII if one has half of a surrogate pair, which is no text in a protobuf message."""
    halves = any("\ud800" <= letter <= "\udfff" for name in names for letter in str(name))
    return json.dumps(list(names), ensure_ascii=halves)


def _images(
    model: Module,
    image_size: int | tuple[int, int] | None,
    in_channels: int | None,
    dynamic_size: bool,
    normalization: Normalization | None,
) -> Images:
    if image_size is None:
        image_size = getattr(model, "image_size", None)
    if image_size is None:
        raise ConfigError(f"{type(model).__name__} does not say for which images it is: give image_size, in pixels")
    sides = tuple(image_size) if isinstance(image_size, Iterable) else (image_size, image_size)
    if len(sides) != 2 or not all(
        isinstance(side, numbers.Integral) and not isinstance(side, bool) and side > 0 for side in sides
    ):
        raise ConfigError(f"image_size is a number of pixels from 1 up, or (height, width), not {image_size!r}")
    if max(sides) > MOST_PIXELS:
        raise ConfigError(
            f"image_size is at most {MOST_PIXELS}, not {max(sides)}: for larger images leave the size free (dynamic_size)"
        )
    if in_channels is None:
        in_channels = next((m.in_channels for m in model.modules() if isinstance(m, Conv2d)), 3)
    return Images(in_channels, (int(sides[0]), int(sides[1])), dynamic_size, normalization)


def _check_settings(
    model: Module, normalization: Normalization | None, images: Images, with_normalization: bool, opset: int
) -> None:
    if with_normalization and normalization is None:
        raise ConfigError("a graph with the normalisation inside needs the mean and the std of the images")
    if normalization is not None and len(normalization.mean) != images.channels:
        raise ConfigError(
            f"the normalisation is of {len(normalization.mean)} channels, and the network's images have {images.channels}"
        )
    if opset not in OPSETS:
        raise ConfigError(f"opset is one of {', '.join(map(str, OPSETS))}, not {opset!r}")
    for name, array in model.state_dict().items():
        if array.dtype.kind == "f" and array.dtype != np.float32:
            raise DtypeError(f"{name} is of {array.dtype}, and ONNX Runtime convolves in float32: export model.float()")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ExportError(f"{name} has values that are NaN or infinite: what such a network computes means nothing")


def _output_names(model: Module, traced: Trace, softmax: bool) -> list[str]:
    if len(traced.outputs) == 1:
        if softmax and len(traced.shapes[0]) != 2:
            raise ConfigError(
                f"softmax goes with a classifier, and {type(model).__name__} returns a tensor of {len(traced.shapes[0])} axes"
            )
        return ["probabilities" if softmax else "logits" if len(traced.shapes[0]) == 2 else "output"]
    if softmax:
        raise ConfigError(
            f"softmax goes with a classifier, and {type(model).__name__} returns {len(traced.outputs)} tensors"
        )
    features = getattr(model, "feature_info", None)
    names = [feature.name for feature in features] if features else []
    return names if len(names) == len(traced.outputs) else [f"output_{i}" for i in range(len(traced.outputs))]


def _graph(traced: Trace, fold: bool, images: Images, softmax: bool, names: list[str], opset: int) -> GraphBuilder:
    """The graph, whose outputs have the given names."""
    graph = GraphBuilder(opset)
    for name in ("input", *names):
        graph.unique(name)
    graph.values[INPUT] = "input"
    if images.normalization is not None:
        mean, std = (
            graph.initializer(np.array(values, np.float32).reshape(1, -1, 1, 1), f"normalization.{name}")
            for name, values in (("mean", images.normalization.mean), ("std", images.normalization.std))
        )
        centred = graph.node("Sub", ["input", mean], "normalization")
        graph.values[INPUT] = graph.node("Div", [centred, std], "normalization")
    calls = fold_batch_norms(traced) if fold else dict(enumerate(traced.calls))
    for number, call in calls.items():
        add_call(graph, number, call)
    named: set[str] = set()
    for number, name in zip(traced.outputs, names):
        value = graph.values[number]
        if softmax:
            value = graph.node("Softmax", [value], "", axis=-1)
        if value == "input" or value in named:
            value = graph.node("Identity", [value], "")
        graph.rename(value, name)
        graph.values = {key: name if found == value else found for key, found in graph.values.items()}
        named.add(name)
    return graph
