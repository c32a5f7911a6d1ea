"""The classes that a network gives to photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..data import evaluation_transform, read_image
from ..data.images.photographs import check_sizes
from ..data.threads import in_threads
from ..errors import AnomalyError, ConfigError, ImageError
from ..grad_mode import no_grad
from ..nn import Module
from ..recorded import RecordedPrediction
from .views import check_views, predictions

if TYPE_CHECKING:
    from .source import TrainedNetwork

Pixels = NDArray[np.uint8]

READERS = 4  # threads: a photograph may take hundreds of megabytes while it is decoded


@dataclass(frozen=True)
class Prediction:
    """path: of the image. probabilities: of the network's classes, (classes,) float64; they sum to 1."""

    path: Path
    probabilities: NDArray[np.float64]

    def top(self, count: int) -> list[tuple[int, float]]:
        """The (class, probability) of the ``count`` most probable classes, best first; of equal ones the first class."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(int(c), float(self.probabilities[c])) for c in order]


def classify(
    network: TrainedNetwork,
    paths: Iterable[Path | str],
    *,
    size: int | None = None,
    resize: int | None = None,
    tta: str = "none",
    on_error: Callable[[ImageError], object] | None = None,
) -> Iterator[Prediction]:
    """A Prediction for each image, in order. Threads read the next ones while the network computes.

    Images are resized and cropped by ``data.evaluation_transform`` (size: by default the network's), made grey for a network
    of one channel, normalised, and seen by the network one by one, so that the bits do not depend on other images. tta: views
    whose logits are averaged, a name of ``views.VIEWS``. An image that cannot be read is an ImageError, which is raised or,
    with ``on_error``, given to that, and left out.

    Raises ConfigError at once for a network whose normalisation is not known, or of other channels, and for settings out of
    range; AnomalyError for outputs that are NaN or infinite.
    """
    check_views(tta)
    size = network.image_size if size is None else size
    size, resize = check_sizes(size, resize)
    channels = input_channels(network.model)
    mean, std = pixel_normalization(network, channels)
    return _classified(network, map(Path, paths), size, resize, channels, (mean, std), tta, on_error)


def input_channels(model: Module) -> int:
    """The number of channels of the images that a network takes: of its first convolution."""
    return next(int(p.shape[1]) for p in model.parameters() if p.ndim == 4)


def pixel_normalization(network: TrainedNetwork, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean, std) of photographs' pixels, from 0 to 255, for a network that takes so many channels; see ``classify``."""
    if channels not in (1, 3):
        raise ConfigError(
            f"{network.name} takes images of {channels} channels, and photographs have 3 or, made grey, 1: it cannot see them"
        )
    known = network.normalization
    if known is None:
        raise ConfigError(
            f"{network.source} does not say how its images were normalised: add --normalize imagenet, cifar10 or cifar100, or "
            "--mean and --std"
        )
    if len(known.mean) != channels:
        raise ConfigError(
            f"{network.name} takes images of {channels} channel{'s' * (channels > 1)}, and the normalisation is of "
            f"{len(known.mean)}: give --mean and --std, each with as many numbers as there are channels"
        )
    return 255 * np.array(known.mean, np.float32), 255 * np.array(known.std, np.float32)


def _classified(
    network: TrainedNetwork,
    paths: Iterator[Path],
    size: int,
    resize: int,
    channels: int,
    normalization: tuple[NDArray[np.float32], NDArray[np.float32]],
    tta: str,
    on_error: Callable[[ImageError], object] | None,
) -> Iterator[Prediction]:
    def read(path: Path) -> tuple[Path, Pixels | ImageError]:
        try:
            image = evaluation_transform(read_image(path), size, resize)
        except ImageError as error:
            return path, error
        return path, image if channels == 3 else grey(image)

    predict = RecordedPrediction(network.model)
    dtype = next(network.model.parameters()).data.dtype
    mean, std = normalization
    for path, image in in_threads(read, paths, min(READERS, kernels.get_num_threads())):
        if isinstance(image, ImageError):
            if on_error is None:
                raise image
            on_error(image)
            continue
        batch = kernels.nchw(((image[None] - mean) / std).astype(dtype))
        switches = nullcontext() if network.recipe is None else network.recipe.switches()
        with switches, no_grad(), np.errstate(all="ignore"):
            _, logits = predictions(lambda view: predict(view).numpy(), batch, tta)
        yield Prediction(path, _softmax(network, logits[0].astype(np.float64), path))


def grey(image: Pixels) -> Pixels:
    """(H, W, 3) → (H, W, 1), as Pillow and torchvision's ``Grayscale`` weigh colours."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def _softmax(network: TrainedNetwork, logits: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    if not np.isfinite(logits).all():
        raise AnomalyError(
            f"the outputs of {network.name} for {path} are not finite: weights in {network.source} are NaN or infinite, or "
            "values in between overflow. Take another checkpoint or file of weights, or check its normalisation"
        )
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()
