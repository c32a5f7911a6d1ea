"""Grad-CAM: where in an image the evidence for a class is ("Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", Selvaraju et al. 2017 [1], §3).

    αₖ = 1/Z · Σᵢⱼ ∂yᶜ/∂Aᵏᵢⱼ        L = ReLU(Σₖ αₖ·Aᵏ)

yᶜ is the score of class c before the softmax, and Aᵏ the k-th channel, of Z pixels, of a feature map: by default the last one,
which the classifier reads through global pooling, and for which [1, appendix A] shows that L is the class activation map of
Zhou et al. 2016 if that pooling is a mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError, DtypeError, ShapeError, brief, nearest
from ...grad_mode import enable_grad
from ...lazy import fusion
from ...nn import Module
from ...tensor import Tensor, topological_order
from ..graph import untouched

LAST = "the last feature map"  # where no module returns it, as in pre-activation networks


@dataclass(frozen=True)
class GradCam:
    """Heat maps of a batch (N, C, H, W); for a single image (C, H, W) without the axis N.

    heat: (N, H, W), L enlarged to the image by bilinear interpolation and divided by its maximum: in [0, 1], of the image's
    dtype; zero where nothing speaks for the class. target, probability: (N,), the class and its softmax probability. layer: the
    module whose output is A, or "the last feature map" if no module returns it. alpha: (N, K), the weights of its channels.
    map: (N, h, w), L as it is.
    """

    heat: NDArray[np.floating]
    target: NDArray[np.int64]
    probability: NDArray[np.floating]
    layer: str
    alpha: NDArray[np.floating]
    map: NDArray[np.floating]


def grad_cam(model: Module, image: Any, target: Any = None, layer: str | None = None) -> GradCam:
    """The parts of an image that speak for a class: Grad-CAM [1].

    image: (C, H, W), or a batch (N, C, H, W): an ndarray or Tensor of floats, normalised as the network's training images were.
    target: a class number, or one for each image; by default the most probable class. layer: the dotted name of a module, whose
    output is taken for A; by default the last feature map of more than one pixel. The model computes in evaluation mode,
    operation by operation, and is left as it was: modes, running statistics, gradients, hooks. Raises ConfigError for a
    class or layer that there is none of, or a network that returns no class scores; ShapeError, DtypeError and DataError for an
    image that cannot be, and DataError for scores that are not finite.

    >>> import minires as mr
    >>> model = mr.models.resnet8(width=4)
    >>> found = grad_cam(model, np.random.default_rng(0).standard_normal((3, 32, 32)), target=7)
    >>> found.heat.shape, found.layer, found.map.shape
    ((32, 32), 'layer3', (8, 8))
    """
    return Scores(model, image, layer).cam(target)


class Scores:
    """The scores of a batch's classes, recorded so that ``cam(target)`` can be asked for several classes, one after another.

    layer: the name of the feature map, as of GradCam; maps: (N, K, h, w), its values; probabilities: (N, classes).
    """

    def __init__(self, model: Module, image: Any, layer: str | None = None) -> None:
        self._model = model
        batch, self._is_single = batch_of(model, image)
        returned = _Returned(model, layer)
        with returned, frozen(model), untouched(model), enable_grad(), fusion(False):
            self._scores = _checked(model.eval()(Tensor(batch, requires_grad=True)), model)
        self._map = returned.last() if layer is not None else _last_map(self._scores)
        self.layer = layer or returned.name_of(self._map) or LAST
        self._map.op = None  # a leaf from now on, at which the backward pass ends
        self._size, self.maps = batch.shape[2:], self._map.data
        self.probabilities = softmax(self._scores.data)

    def cam(self, target: Any = None) -> GradCam:
        """The heat maps of a class, or of one for each image; by default of the most probable."""
        classes = self._classes(target)
        seed = np.zeros_like(self._scores.data)
        seed[np.arange(len(seed)), classes] = 1
        self._map.grad = None
        with frozen(self._model):
            self._scores.backward(seed, retain_graph=True)
        gradient = self._map.grad
        if gradient is None:  # the scores do not depend on it
            gradient = np.zeros_like(self.maps)
        alpha = gradient.mean(axis=(2, 3))  # (N, K)
        L = np.maximum(np.einsum("nk,nkhw->nhw", alpha, self.maps), 0)
        heat = enlarged(L, *self._size)
        most = heat.max(axis=(1, 2), keepdims=True)
        heat = np.divide(heat, most, out=np.zeros_like(heat), where=most > 0)
        probability = self.probabilities[np.arange(len(seed)), classes]
        found = heat, classes, probability, alpha, L
        heat, classes, probability, alpha, L = (each[0] for each in found) if self._is_single else found
        return GradCam(heat, classes, probability, self.layer, alpha, L)

    def _classes(self, target: Any) -> NDArray[np.int64]:
        images, count = self.probabilities.shape
        if target is None:
            return self.probabilities.argmax(axis=1)
        classes = np.asarray(target.data if isinstance(target, Tensor) else target)
        if classes.dtype.kind not in "iu" or classes.shape not in ((), (images,)):
            raise ConfigError(f"target is a class number, or one for each of {images} images, not {brief(target)}")
        wrong = classes[(classes < 0) | (classes >= count)]
        if wrong.size:
            raise ConfigError(f"there is no class {wrong.flat[0]}: the network's classes are 0 to {count - 1}")
        return np.broadcast_to(classes, (images,)).astype(np.int64)


class _Returned:
    """Inside, notes the Tensors that modules return: all, or those of one layer. Raises ConfigError for an unknown one."""

    def __init__(self, model: Module, layer: str | None) -> None:
        self.modules = {name: module for name, module in model.named_modules() if name}
        if layer is not None:
            check_layer(self.modules, layer)
            self.modules = {layer: self.modules[layer]}
        self.layer = layer
        self.found: dict[str, list[Any]] = {name: [] for name in self.modules}

    def __enter__(self) -> None:
        self.handles = [
            module.register_forward_hook(lambda module, inputs, y, name=name: self.found[name].append(y))
            for name, module in self.modules.items()
        ]

    def __exit__(self, *exc: object) -> None:
        for handle in self.handles:
            handle.remove()

    def name_of(self, x: Tensor) -> str | None:
        """The outermost module that returned x, or None."""
        return next((name for name, found in self.found.items() if any(y is x for y in found)), None)

    def last(self) -> Tensor:
        """What the layer returned at its last call. Raises ConfigError for anything but a feature map."""
        assert self.layer is not None
        return feature_map(self.layer, self.found[self.layer])


def check_layer(modules: Any, layer: str) -> None:
    """Raise ConfigError for a layer that is not among the names of modules."""
    if layer not in modules:
        raise ConfigError(
            f"there is no layer {layer!r} in this network{nearest(layer, modules)}: a layer is a module's name, such as "
            f"{next(iter(modules), '')!r}"
        )


def feature_map(layer: str, returned: list[Any]) -> Tensor:
    """The last Tensor that a layer returned. Raises ConfigError for anything but a feature map of more than one pixel."""
    if not returned:
        raise ConfigError(f"layer {layer!r} takes no part in the network's forward pass in evaluation mode")
    y = returned[-1]
    if not isinstance(y, Tensor) or y.ndim != 4:
        what = f"a tensor of shape {y.shape}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise ConfigError(f"layer {layer!r} returns {what}, and no feature map (N, C, H, W): choose a layer before it")
    if not is_map(y):
        raise ConfigError(
            f"layer {layer!r} returns a single pixel, which has no parts: choose a layer before it, or a larger image"
        )
    return y


def is_map(x: Tensor) -> bool:
    """Whether a Tensor is a feature map (N, C, H, W) of more than one pixel."""
    return x.ndim == 4 and x.shape[2] * x.shape[3] > 1


def _last_map(scores: Tensor) -> Tensor:
    """The feature map of more than one pixel that is nearest to the scores, along the graph."""
    maps = [x for x in topological_order([scores]) if x.op is not None and is_map(x)]
    if not maps:
        raise ConfigError("this network makes no feature map of more than one pixel: give it a larger image")
    return maps[-1]


@contextmanager
def frozen(model: Module) -> Iterator[None]:
    """Inside, no parameter requires a gradient: none is computed, and what is in ``.grad`` stays."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad = False
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad = requires_grad


def batch_of(model: Module, image: Any) -> tuple[NDArray[Any], bool]:
    """The image as a batch (N, C, H, W) of the weights' dtype, and whether it was a single one (C, H, W)."""
    array = np.asarray(image.data if isinstance(image, Tensor) else image)
    if array.dtype.kind != "f":
        raise DtypeError(
            f"the image is an array of {array.dtype}: it must be of floats, normalised as the network's training images were"
        )
    if array.ndim not in (3, 4) or not array.size:
        raise ShapeError(f"an image is (C, H, W), and a batch of them (N, C, H, W), not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise DataError("the image has values that are NaN or infinite")
    dtype = next((parameter.dtype for parameter in model.parameters()), array.dtype)
    return (array if array.ndim == 4 else array[None]).astype(dtype), array.ndim == 3


def _checked(scores: Any, model: Module) -> Tensor:
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        what = f"a tensor of shape {scores.shape}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ConfigError(
            f"{type(model).__name__} returns {what}: Grad-CAM asks for a classifier, which returns scores (N, classes)"
        )
    if not np.isfinite(scores.data).all():
        raise DataError("the network's scores of this image are not finite: look at its weights")
    return scores


def softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """Probabilities (N, classes) from scores."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def enlarged(maps: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """(N, h, w) → (N, height, width) by bilinear interpolation between the pixels' centres, as PyTorch does it."""
    rows, columns = (_interpolation(*sizes) for sizes in ((maps.shape[1], height), (maps.shape[2], width)))
    return (rows @ maps.astype(np.float64) @ columns.T).astype(maps.dtype)


def _interpolation(size: int, new: int) -> NDArray[np.float64]:
    """(new, size): the weights of the old pixels in each of the new."""
    # in old pixels; constant beyond the outermost
    centres = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
    low = np.floor(centres).astype(int)
    weights = np.zeros((new, size))
    weights[np.arange(new), low] = 1 - (centres - low)
    weights[np.arange(new), np.minimum(low + 1, size - 1)] += centres - low
    return weights
