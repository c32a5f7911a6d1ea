"""Batch norm as part of the convolution before it: one operator in place of two, for inference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ops.convolution import Conv2d
from ...ops.normalization import BatchNorm
from .trace import Call, Constant, Trace


def fold_batch_norms(trace: Trace) -> dict[int, Call]:
    """The calls by number, where each batch norm that reads a convolution's output, and alone does, is that convolution:

        γ·(w ∗ x + b − μ)/√(σ² + ε) + β = (s·w) ∗ x + s·(b − μ) + β  with s = γ/√(σ² + ε).

    Only with the statistics of training: the batch's own are not known yet.
    """
    calls = dict(enumerate(trace.calls))
    uses = Counter([*(x for call in trace.calls for x in call.inputs if isinstance(x, int)), *trace.outputs])
    for number, norm in enumerate(trace.calls):
        source = norm.inputs[0]
        if norm.op is not BatchNorm or not isinstance(source, int) or uses[source] != 1:
            continue
        conv = calls.get(source)
        if conv is None or conv.op is not Conv2d or norm.settings["fixed"][0] is None:
            continue
        arrays = [x.array for x in [*conv.inputs[1:], *norm.inputs[1:]] if isinstance(x, Constant)]
        if len(arrays) < len(conv.inputs) + 1:  # a weight that follows from the images
            continue
        weight, bias = _folded(norm, arrays)
        inputs = [
            conv.inputs[0],
            *(Constant(a, f"{conv.path}.folded.{n}") for a, n in ((weight, "weight"), (bias, "bias"))),
        ]
        calls[number] = replace(conv, inputs=inputs)
        calls[number].twin = conv.twin
        del calls[source]
    return calls


def _folded(norm: Call, arrays: list[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(weight, bias) of the convolution. arrays: w, b if there is one, γ, β."""
    (mean, var), (w, *b, gamma, beta) = norm.settings["fixed"], (a.astype(np.float64) for a in arrays)
    scale = gamma / np.sqrt(var.astype(np.float64) + norm.settings["eps"])
    bias = beta + scale * ((b[0] if b else 0) - mean)
    return (w * scale[:, None, None, None]).astype(arrays[0].dtype), bias.astype(arrays[0].dtype)
