"""The network and the images that an experiment looks at, as the command line names them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import data, models, random
from ..data import Dataset
from ..errors import ConfigError
from ..nn import Module

MOST_IMAGES = 4096  # in a batch; more would need more memory than a laptop has


@dataclass(frozen=True)
class Setting:
    """What ``minires lab`` takes for every experiment.

    model: a name of ``models.names()``; model_options: keywords of its constructor, such as option = "B"; width: channels of
    the first stage, of CIFAR networks; image_size: pixels along a side, to which larger images are averaged; dataset,
    data_dir: as of ``data.load``; batch_size: images; seed: of weights and the choice of images; run: the folder of a trained
    run, whose model and data set are taken in their place; quick: a smaller experiment. out: a folder for what an experiment
    keeps while it runs, to go on from; say: shows a sentence meanwhile.
    """

    model: str = "resnet20"
    model_options: dict[str, Any] = field(default_factory=dict)
    width: int | None = None
    image_size: int | None = None
    dataset: str = "shapes"
    data_dir: str | None = None
    batch_size: int = 32
    seed: int = 0
    run: str | None = None
    quick: bool = False
    out: str | None = field(default=None, compare=False)
    say: Callable[[str], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, least, most in (("batch_size", 2, MOST_IMAGES), ("seed", 0, 2**63 - 1)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be a whole number from {least} to {most}, not {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """What a result says of its setting: everything that is not left out, of a run neither a model nor a data set.

        Nor where files are: that is of a machine, not of the experiment.
        """
        unused = ("data_dir", "out", "say", *(("model", "width", "dataset") if self.run is not None else ()))
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in unused}
        return {k: v for k, v in given.items() if v is not None and v is not False and v != {}}

    def with_(self, **changes: Any) -> Setting:
        return replace(self, **changes)

    def sized(self, width: int | None, image_size: int | None) -> Setting:
        """With this width and size of images where the setting says nothing else; as it is for a run, whose size is its own."""
        if self.run is not None:
            return self
        return replace(
            self,
            width=width if self.width is None and self._has_width and "width" not in self.model_options else self.width,
            image_size=image_size if self.image_size is None else self.image_size,
        )

    @property
    def _has_width(self) -> bool:
        """Whether the model is one that takes a width."""
        return self.model in models.MODELS and "width" in inspect.signature(models.MODELS[self.model]).parameters

    def network(self, dtype: DTypeLike = np.float64, **options: Any) -> Module:
        """The network, in training mode: of the run, or new with weights by the seed. options: of its constructor.

        Raises ConfigError for an unknown model or option, and what loading a run raises.
        """
        if self.run is not None:
            from .. import training

            if self.model_options:
                raise ConfigError("a run has the options that its network was made with: leave --model-option out")
            _, model, _ = training.load_run(Path(self.run))
            return model.to(dtype).train()
        if self.width is not None and "width" in self.model_options:
            raise ConfigError("width is given twice: leave --width or --model-option width=… out")
        options = self.model_options | ({} if self.width is None else {"width": self.width}) | options
        if "width" in options and self.model in models.MODELS and not self._has_width:
            raise ConfigError(f"{self.model} has no width: --width is for the CIFAR networks, such as resnet20")
        if options.get("features_only"):
            raise ConfigError(
                "features_only makes a backbone, which returns feature maps: the lab looks at classifiers"
            )
        random.manual_seed(self.seed)
        return models.create(self.model, **{"num_classes": self.num_classes, **options}).to(dtype)

    @property
    def num_classes(self) -> int:
        """The classes of the data set. Raises ConfigError for an unknown one."""
        if self.dataset not in data.names():
            data.load(self.dataset)  # which says so
        return len(data.LAYOUTS[self.dataset].classes) if self.dataset in data.LAYOUTS else 10

    def first_and_last(self, dtype: DTypeLike = np.float64) -> dict[int, Module]:
        """The network of the run as it was new and as it is now, in training mode, by the number of steps done.

        Raises what loading a run raises.
        """
        from .. import training
        from ..training.build import build_model

        assert self.run is not None
        recipe, model, checkpoint = training.load_run(Path(self.run))
        if recipe.weights is not None:
            raise ConfigError(
                f"{self.run} began with the weights {recipe.weights}, and this looks at a training from new ones: give a run "
                "without --weights"
            )
        random.manual_seed(recipe.seed)
        new = build_model(recipe, checkpoint.info["num_classes"])
        return {n: network.to(dtype).train() for n, network in ((0, new), (checkpoint.info["step"], model))}

    def datasets(self) -> tuple[Dataset, Dataset]:
        """(training set, test set), with images averaged down to ``image_size``."""
        name, data_dir = self.dataset, self.data_dir
        if self.run is not None:
            from .. import training

            recipe, _, _ = training.load_run(Path(self.run))
            if self.data_dir is not None:
                recipe = recipe.with_settings(data_dir=self.data_dir)
            found, found_test, _ = training.load_data(recipe)
            train, test = (_mixed(d) if isinstance(d, data.MapDataset) else d for d in (found, found_test))
        else:
            train, test = _built_in() if (name, data_dir) == ("shapes", None) else data.load(name, data_dir)
        train, test = averaged(train, self.image_size), averaged(test, self.image_size)
        return train, replace(test, mean=train.mean, std=train.std)

    def batch(self, dtype: DTypeLike = np.float64) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """(training images (N, C, H, W) normalised, labels (N,)), chosen by the seed."""
        return self.batches(1, dtype)[0]

    def batches(self, count: int, dtype: DTypeLike = np.float64) -> list[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Batches of training images, as of ``batch``, each drawn by itself."""
        train, _ = self.datasets()
        if self.batch_size > len(train):
            raise ConfigError(f"batch_size {self.batch_size} is more than the {len(train)} images of {train.name}")
        rng = np.random.default_rng(self.seed)
        drawn = [rng.choice(len(train), self.batch_size, replace=False) for _ in range(count)]
        return [normalised(train, indices, dtype) for indices in drawn]


def _mixed(dataset: data.MapDataset) -> Dataset:
    """The images of a folder in memory, in an order in which the first ones are of all classes: the folder's is by class."""
    found = dataset.in_memory()
    return found.take(np.random.default_rng(0).permutation(len(found)))


@functools.cache
def _built_in() -> tuple[Dataset, Dataset]:
    """The built-in data set: it takes seconds to draw, and some commands run several experiments."""
    return data.load("shapes")


def deeper(setting: Setting) -> Setting | None:
    """The setting with the next deeper model of the same family; None for the deepest, for others, and for a trained run."""
    family, depth = family_and_depth(setting.model)
    if setting.run is not None or depth is None:
        return None
    depths = sorted(d for f, d in map(family_and_depth, models.names()) if f == family and d is not None and d > depth)
    return setting.with_(model=f"{family}{depths[0]}") if depths else None


def family_and_depth(model: str) -> tuple[str, int | None]:
    """A model's name in two: ("resnet", 20) of resnet20; no depth where there is none."""
    family = model.rstrip("0123456789")
    return family, int(model[len(family) :]) if model != family else None


def normalised(
    dataset: Dataset, indices: NDArray[np.integer], dtype: DTypeLike
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Images (N, C, H, W), stored channels-last, with the data set's colour statistics taken out; labels."""
    images = (dataset.images[indices] / 255 - dataset.mean.astype(np.float64)) / dataset.std.astype(np.float64)
    return images.astype(dtype).transpose(0, 3, 1, 2), dataset.labels[indices]


def averaged(dataset: Dataset, size: int | None) -> Dataset:
    """The data set with images of size × size pixels, each the mean of a square. Raises ConfigError where that is not whole."""
    side = dataset.images.shape[1]
    if size is None or size == side:
        return dataset
    if size < 1 or side % size or dataset.images.shape[2] != side:
        raise ConfigError(f"image_size {size}: images of {side}×{side} pixels can be averaged to a divisor of {side}")
    k = side // size
    squares = dataset.images.reshape(len(dataset), size, k, size, k, -1)
    images = np.rint(squares.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)
    return Dataset(images, dataset.labels, dataset.classes, dataset.name)  # averaging lowers the deviation of colours
