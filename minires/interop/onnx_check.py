"""Compare a network with its ONNX file in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import ExportError
from ..grad_mode import no_grad
from ..nn import Module
from ..tensor import Tensor
from .onnx_file import Images
from .onnx_trace import evaluating

CHECKED = 1, 7  # images in the batches that are compared


def compare(model: Module, data: bytes, images: Images, softmax: bool) -> float | None:
    """The largest difference between the outputs of the network and of its file, as a part of the largest (or of 1).

    None where ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = kernels.get_num_threads(), 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.NotImplemented,
        state.RuntimeException,
    ) as error:
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} cannot run the graph: {error}") from error
    rng, worst = np.random.default_rng(2), 0.0
    for count, shape in zip(CHECKED, images.shapes):
        pixels = rng.random((count, *shape[1:]), np.float32)
        found = session.run(None, {"input": pixels})
        for theirs, ours in zip(found, _outputs(model, pixels, images, softmax)):
            if not np.isfinite(ours).all():
                raise ExportError(
                    "the network's outputs for random images are NaN or infinite: values in between overflow"
                )
            worst = max(worst, float(np.abs(theirs - ours).max() / max(np.abs(ours).max(), 1)))
    return worst


def _outputs(model: Module, pixels: NDArray[np.float32], images: Images, softmax: bool) -> list[NDArray[Any]]:
    """The network's own outputs."""
    x = pixels
    if images.normalization is not None:
        mean, std = (
            np.array(v, np.float32)[:, None, None] for v in (images.normalization.mean, images.normalization.std)
        )
        x = (pixels - mean) / std
    with evaluating(model), no_grad():
        y = model(Tensor(x))
    outputs = [t.softmax(-1) if softmax else t for t in (y if isinstance(y, list | tuple) else [y])]
    return [t.data for t in outputs]
