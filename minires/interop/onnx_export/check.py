"""Compare a network with its ONNX file in ONNX Runtime."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ... import kernels
from ...errors import ExportError, plural
from ...grad_mode import no_grad
from ...nn import Module
from ...tensor import Tensor
from .file import Images
from .trace import evaluating

CHECKED = 1, 7  # images in the batches that are compared
TOLERANCE = 1e-4  # of the largest output, or of 1
ROUNDING = 4  # times as far from the result in float64 as minires' own float32 is: as good


def compare(model: Module, data: bytes, images: Images, softmax: bool) -> float | None:
    """The largest difference between the outputs of the network and of its file, as a part of the largest (or of 1).

    Above TOLERANCE it is rounding alone: in a network with a thousand layers float32 itself can be that far from float64. None
    where ONNX Runtime is not installed. Raises ExportError for outputs that are further apart, or not finite.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    # its errors are raised: 4 leaves them out of standard error
    options.intra_op_num_threads, options.log_severity_level = kernels.get_num_threads(), 4
    errors = state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} cannot run the graph: {error}") from error
    rng, worst = np.random.default_rng(2), 0.0
    for count, shape in zip(CHECKED, images.shapes):
        pixels = rng.random((count, *shape[1:]), np.float32)
        ours = _outputs(model, pixels, images, softmax)
        try:
            theirs = session.run(None, {"input": pixels})
        except errors as error:
            raise ExportError(
                f"ONNX Runtime {onnxruntime.__version__} cannot run the graph for {plural(count, 'image')}: {error}"
            ) from error
        if not all(np.isfinite(y).all() for y in ours):
            raise ExportError("the network's outputs for random images are NaN or infinite: values in between overflow")
        if [y.shape for y in theirs] != [y.shape for y in ours]:
            raise ExportError(
                f"ONNX Runtime's outputs are of shape {_shapes(theirs)}, and minires' of {_shapes(ours)}: nothing was written"
            )
        difference = _difference(theirs, ours)
        if not difference <= TOLERANCE:  # or NaN
            exact = _outputs(copy.deepcopy(model).double(), pixels, images, softmax, np.float64)
            if not _difference(theirs, exact) <= ROUNDING * _difference(ours, exact):
                raise ExportError(
                    f"ONNX Runtime computes other values than minires, by {difference:.1e} of the largest, and nothing was "
                    "written: what a network does with arrays, outside minires' functions, cannot be seen"
                )
        worst = max(worst, difference)
    return worst


def _shapes(arrays: list[NDArray[Any]]) -> str:
    return ", ".join(str(y.shape) for y in arrays)


def _difference(found: list[NDArray[Any]], expected: list[NDArray[Any]]) -> float:
    return float(np.max([np.abs(a - b).max() / max(np.abs(b).max(), 1) for a, b in zip(found, expected)]))  # a NaN too


def _outputs(
    model: Module, pixels: NDArray[np.float32], images: Images, softmax: bool, dtype: DTypeLike = np.float32
) -> list[NDArray[Any]]:
    """The outputs of the network itself, which computes in the given dtype."""
    x = pixels.astype(dtype)
    if images.normalization is not None:
        mean, std = (np.array(v, dtype)[:, None, None] for v in (images.normalization.mean, images.normalization.std))
        x = (x - mean) / std
    with evaluating(model), no_grad():
        y = model(Tensor(x))
        outputs = [t.softmax(-1) if softmax else t for t in (y if isinstance(y, list | tuple) else [y])]
    return [t.data for t in outputs]
