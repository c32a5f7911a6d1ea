"""From a graph in Python to the bytes of an ONNX file, checked by ``onnx.checker``."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ...data import Normalization
from ...errors import ConfigError, ExportError
from .graph import GraphBuilder
from .trace import Shape


@dataclass(frozen=True)
class Images:
    """What the network's input is. normalization: what is inside the graph, or None."""

    channels: int
    size: tuple[int, int]
    dynamic_size: bool
    normalization: Normalization | None

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """Of two batches that differ in what is free."""
        height, width = self.size
        other = (height + 32, width + 64) if self.dynamic_size else self.size  # multiples of what networks shrink by
        return (2, self.channels, height, width), (3, self.channels, *other)

    @property
    def dims(self) -> list[int | str]:
        """The lengths of the input: numbers where they are fixed, else names."""
        return ["batch", self.channels, *(("height", "width") if self.dynamic_size else self.size)]


def require_onnx() -> ModuleType:
    """The package ``onnx``, or ConfigError that says how to install it."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError:
        raise ConfigError('ONNX files need the package onnx: `pip install "minires[onnx]"` installs it') from None
    return onnx


def dims_of(name: str, first: Shape, second: Shape, images: Images) -> list[int | str]:
    """The lengths of an output: numbers where they are fixed, else a name."""
    batches = images.shapes[0][0], images.shapes[1][0]
    dims: list[int | str] = []
    for axis, (n, m) in enumerate(zip(first, second)):
        is_batch = axis == 0 and (n, m) == batches  # a height may grow from 2 to 3 too
        dims.append(n if n == m else "batch" if is_batch else f"{name}_{axis}")
    return dims


def protobuf(
    onnx: ModuleType,
    graph: GraphBuilder,
    images: Images,
    outputs: dict[str, list[int | str]],
    metadata: dict[str, str],
    opset: int,
) -> Any:
    """The ModelProto, checked. Raises ExportError when the checker refuses it."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node(n.kind, n.inputs, [n.output], name=n.name, **n.attributes) for n in graph.nodes]
    taken = helper.make_tensor_value_info("input", float32, images.dims, f"(N, C, H, W): {metadata['input']}")
    given = [helper.make_tensor_value_info(name, float32, dims) for name, dims in outputs.items()]
    weights = [
        onnx.numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in graph.initializers.items()
    ]
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(nodes, metadata["model"], [taken], given, weights),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="minires",
        producer_version=metadata["minires_version"],
    )
    helper.set_model_props(model, metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph is not valid in ONNX: {error}") from error
    return model
