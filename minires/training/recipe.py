"""A Recipe holds all settings that determine what a training run computes. It is saved as the run's ``config.toml``.

The defaults of a dataset are in ``recipes/<dataset>.toml``, other recipes that have a name in ``named_recipes/<name>.toml``;
the user's settings override them.
"""

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from .. import data
from ..errors import ConfigError, brief, nearest
from ..files import expand_user
from ..kernels.switches import winograd
from ..lazy import fusion
from .averaging import AVERAGES
from .toml_text import parse_settings, read_text, toml_value
from .views import VIEWS

SCHEDULES = {"one-cycle": 0.3, "cosine": 0.0, "linear": 0.2, "multi-step": 0.0, "constant": 0.0}  # name -> usual warmup
OPTIMIZERS, ROLES = ("sgd", "adamw", "muon"), ("filters", "head", "biases")
MOST = 2**31 - 1  # of a whole number but the seed: what fits the counters of NumPy and Numba on any system
MOST_SEED = 2**63 - 1  # as TOML has it
DEFAULTS, NAMED = (resources.files(__package__) / folder for folder in ("recipes", "named_recipes"))


@dataclass(frozen=True)
class Recipe:
    """The model, the data and the settings of a training run. Raises ConfigError for a value that is out of range.

    >>> Recipe(model="resnet20", epochs=10).schedule
    'one-cycle'
    >>> Recipe(epochs=-1)
    Traceback (most recent call last):
        ...
    minires.errors.ConfigError: epochs must be a whole number from 1 up, not -1
    """

    model: str = "resnet8"  # a name of minires.models
    model_options: dict = field(default_factory=dict)  # keywords of its constructor, such as option = "B"
    dataset: str = "shapes"  # a name of minires.data
    data_dir: str | None = None  # where its files are; None for the built-in set
    val: float = (
        0  # training images held out for validation: a fraction below 1, or a number. Of one folder: as the test set
    )
    image_size: int | None = (
        None  # of a folder: the side that images are resized to; None: the one that the network is for
    )
    cache: str | None = None  # of a folder: where decoded images are kept; None: nowhere. The result has the same bits
    mean: tuple = ()  # of the colours (a number for each channel, of pixels in [0, 1]), and
    std: tuple = ()  # their standard deviations, which images are normalised by; empty: those of the training images
    # fine-tuning
    weights: str | None = None  # to begin from: a file of weights, or a run; None: the network is newly initialised
    weights_sha256: str | None = None  # the sum of that file, which must not have changed; None: it is not checked
    num_classes: int | None = None  # of the new classifier that replaces the weights' own if theirs has another number
    freeze: tuple = ()  # the parts that are not trained, such as "stem" and "layer1" (freezing.py)
    # how to train
    epochs: int = 5
    steps: int | None = None  # the length of the run in steps, in place of epochs
    batch_size: int = 128
    seed: int = 0  # for initialisation, the order of the images and augmentation
    threads: int | None = None  # None: one for each physical core. The result has the same bits for any number
    optimizer: str = "sgd"  # or "adamw", or "muon": Muon for filters, SGD for the others
    lr: float = 0.1  # the peak of the schedule
    lr_factors: dict = field(default_factory=dict)  # on lr, by role (optimization.py): "filters", "head", "biases"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norms: bool = False  # apply weight decay to batch norms and biases too
    muon_momentum: float = 0.6  # momentum is SGD's
    label_smoothing: float = 0.0
    average: str = "none"  # of the weights: "none", "ema" or "lookahead" (averaging.py)
    eval_every: int = 1  # epochs from one evaluation to the next; the last epoch has one in any case
    tta: str = "none"  # test-time augmentation after the last epoch: "none", "flip" or "views6" (views.py)
    # schedule
    schedule: str = "one-cycle"
    warmup: float = 0.3  # in which lr rises to its peak: a fraction of the run, or from 1 up a number of steps
    milestones: tuple = (0.5, 0.75)  # multi-step: fractions of the run, or steps, after which lr is multiplied by gamma
    gamma: float = 0.1
    final_lr: float = 0.0  # linear: where it ends, as a fraction of the peak
    error_warmup: float | None = None  # the factor on lr until the training error is below 80 % (optim.ErrorWarmup)
    # augmentation
    crop_scale: tuple = ()  # of a folder: random resized crops of this part of the area, from and to; empty: none
    crop: int = 4  # pixels of padding before a random crop; 0: no crop
    reflect: bool = False  # pad by reflection, not with zeros
    flip: bool = True
    alternate: bool = False  # flip each image in every other epoch, not at random
    jitter: float = 0.0  # of contrast and brightness: at most this much
    sizes: tuple = ()  # smaller images at first: pairs of a side and the fraction of the run from which it is that
    cutout: int = 0  # side of the square that is blanked out; 0: none
    # kernels: these change values by rounding errors only
    fusion: bool = True  # fuse the operations of a block where possible; False: run op by op
    winograd: bool = True  # use the Winograd algorithm where the committed table says that it is faster

    def __post_init__(self) -> None:
        self._types()
        for name in ("epochs", "batch_size", "threads", "steps", "eval_every", "num_classes", "image_size"):
            self._whole(name, 1)
        for name in ("seed", "crop", "cutout"):
            self._whole(name, 0)
        self._val()
        if self.crop_scale and not data.is_scale(self.crop_scale):
            raise ConfigError(
                "crop_scale is the least and the largest part of the area, from above 0 up to 1, such as [0.08, 1], not "
                f"{brief(list(self.crop_scale))}"
            )
        self._model_options()
        self._fine_tuning()
        self._real("lr", above=0)
        self._real("weight_decay", least=0)
        self._real("momentum", least=0, below=1)
        self._real("muon_momentum", least=0, below=1)
        self._real("final_lr", least=0, below=1)
        self._real("jitter", least=0, below=1)
        self._sizes()
        data.check_normalization(self.mean, self.std)
        self._lr_factors()
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("average", AVERAGES),
            ("tta", VIEWS),
            ("schedule", SCHEDULES),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(
                    f"unknown {name} {brief(value)}{nearest(value, choices)}: choose one of {', '.join(choices)}"
                )
        self._real("label_smoothing", least=0, below=1)
        self._real("gamma", above=0)
        self._real("warmup", least=0, below=MOST)
        if self.error_warmup is not None:
            self._real("error_warmup", above=0, below=1)
        if self.alternate and not self.flip:
            raise ConfigError("alternate says when images are flipped: it goes with flip")
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov needs a momentum above 0: give one, or switch nesterov off")
        self._positions()

    def _positions(self) -> None:
        """Check the points of the schedule that are fractions of the run or steps."""
        if self.warmup >= 1 and self.warmup % 1:
            raise ConfigError(f"warmup is a fraction of the run below 1 or a whole number of steps, not {self.warmup}")
        points = (0, *self.milestones)
        rise = all(map(is_real, points)) and all(a < b for a, b in pairwise(points))
        if not rise or not (points[-1] < 1 or all(m >= 1 and m % 1 == 0 for m in self.milestones)):
            raise ConfigError(
                "milestones are rising parts of the run between 0 and 1, or whole numbers of steps, not "
                f"{brief(list(self.milestones))}"
            )

    def _types(self) -> None:
        kinds: dict[Any, str] = {
            bool: "true or false",
            str: "a text",
            tuple: "a list",
            dict: "a table",
            str | None: "a text",
        }
        for f in fields(self):
            kind: Any = f.type
            value = getattr(self, f.name)
            if kind is tuple and isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))
            elif kind in kinds and not isinstance(value, kind):
                raise ConfigError(f"{f.name} must be {kinds[kind]}, not {brief(value)}")
            elif isinstance(value, str):
                _check_text(f.name, value)

    def _model_options(self) -> None:
        for name, value in self.model_options.items():
            number = is_real(value) and abs(value) <= MOST
            if not (number or isinstance(value, bool | str)):  # what TOML can say
                named = (
                    ": networks without shortcuts have names of their own, such as plain20" if name == "option" else ""
                )
                raise ConfigError(
                    f"the model option {brief(name)} must be a text, a number below 2^31 or true or false, not {brief(value)}"
                    + (named if value is None else "")
                )
            _check_text("model_options", f"{name}{value}")

    def _fine_tuning(self) -> None:
        for name in self.freeze:
            if not isinstance(name, str):
                raise ConfigError(
                    f'freeze is a list of names of parts, such as ["stem", "layer1"], not {brief(list(self.freeze))}'
                )
            _check_text("freeze", name)
        if self.weights_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.weights_sha256):
            raise ConfigError(f"weights_sha256 has 64 hexadecimal digits, unlike {brief(self.weights_sha256)}")

    def _sizes(self) -> None:
        pairs = [tuple(pair) for pair in self.sizes if isinstance(pair, list | tuple) and len(pair) == 2]
        sides, starts = [side for side, _ in pairs], [start for _, start in pairs]
        whole = all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MOST for side in sides)
        fractions = all(map(is_real, starts)) and all(0 <= start < 1 for start in starts)
        if len(pairs) < len(self.sizes) or not (whole and fractions) or sorted(set(starts)) != starts:
            raise ConfigError(
                "sizes are pairs of a side in pixels and the fraction of the run from which images have it, rising from 0 "
                f"to below 1, such as [[24, 0.0], [32, 0.5]], not {brief(list(self.sizes))}"
            )
        object.__setattr__(self, "sizes", tuple(pairs))

    def _lr_factors(self) -> None:
        for name, value in self.lr_factors.items():
            if name not in ROLES:
                raise ConfigError(
                    f"unknown role {brief(name)} in lr_factors{nearest(name, ROLES)}: there are {', '.join(ROLES)}"
                )
            if not is_real(value) or value < 0:
                raise ConfigError(f"the factor on lr of {name} must be a number from 0 up, not {brief(value)}")

    def _whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is None and name in ("threads", "steps", "num_classes", "image_size"):
            return
        most = MOST_SEED if name == "seed" else MOST
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} must be a whole number from {least} up, not {brief(value)}")
        if value > most:
            raise ConfigError(f"{name} must be at most {most}, not {brief(value)}")

    def _val(self) -> None:
        whole = is_real(self.val) and self.val % 1 == 0 and 0 <= self.val <= MOST
        if not whole and not (is_real(self.val) and 0 < self.val < 1):
            raise ConfigError(f"val must be a whole number from 0 up, or a fraction below 1, not {brief(self.val)}")
        object.__setattr__(self, "val", int(self.val) if whole else self.val)

    def _real(self, name: str, least: float = -math.inf, above: float = -math.inf, below: float = math.inf) -> None:
        value = getattr(self, name)
        if not is_real(value) or not (value >= least and value > above and value < below):
            limits = [f"from {least:g} up"] * (least > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
            limits += [f"below {below:g}"] * (below < math.inf)
            raise ConfigError(f"{name} must be a number {' and '.join(limits)}, not {brief(value)}")

    @classmethod
    def for_dataset(cls, dataset: str = "shapes", **settings: Any) -> Self:
        """The default recipe of a dataset, with some settings changed.

        Raises ConfigError for an unknown dataset or setting, or a value out of range.
        """
        known = data.names()
        if dataset not in known:
            raise ConfigError(
                f"unknown data set {brief(dataset)}{nearest(dataset, known)}: there are {', '.join(known)}"
            )
        path = DEFAULTS / f"{dataset}.toml"
        defaults = cls.parse(path.read_text("utf-8"), path.name)
        return defaults.with_settings(**settings)

    @classmethod
    def named(cls, name: str, **settings: Any) -> Self:
        """A recipe of ``named_recipes()``, with some settings changed.

        Its table ``with_model`` has more settings for some models. Raises ConfigError for an unknown name or setting, or a
        value out of range.
        """
        known = named_recipes()
        if name not in known:
            raise ConfigError(f"unknown recipe {brief(name)}{nearest(name, known)}: there are {', '.join(known)}")
        own = parse_settings((NAMED / f"{name}.toml").read_text("utf-8"), name)
        for_models = own.pop("with_model", {})
        if settings.get("model", own["model"]) != own["model"]:
            own.pop("model_options", None)  # which are the other model's
        model = settings.get("model", own["model"])
        own |= for_models.get(model, {}) if isinstance(model, str) else {}
        return cls.from_settings(own, name).with_settings(**settings)

    def with_settings(self, **settings: Any) -> Self:
        """A copy with some settings changed.

        A different schedule comes with its usual warmup, a number of epochs is the length of the run in place of a number of
        steps, and weights are those that the file has now, unless that is given too.
        """
        _check_names(settings, "")
        if "epochs" in settings:
            settings = {"steps": None, **settings}
        if "weights" in settings:
            settings = {"weights_sha256": None, **settings}
        if settings.get("schedule", self.schedule) != self.schedule:
            usual = SCHEDULES.get(settings["schedule"], 0.0) if isinstance(settings["schedule"], str) else 0.0
            settings = {"warmup": usual, **settings}
        return replace(self, **settings)

    def total_steps(self, steps_per_epoch: int) -> int:
        """The length of the run in steps."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps

    @contextmanager
    def switches(self) -> Iterator[None]:
        """A context manager that sets fusion and Winograd as in the recipe."""
        with fusion(self.fusion), winograd(self.winograd):
            yield

    @classmethod
    def parse(cls, text: str, source: str = "recipe") -> Self:
        """The Recipe in a TOML text. ``source`` is its name in error messages."""
        return cls.from_settings(parse_settings(text, source), source)

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """The recipe in a TOML file or in a run's folder; settings that it lacks are the defaults of its dataset.

        Paths (data_dir, weights, cache) are relative to the file's folder. Raises ConfigError for one that cannot be read.
        """
        path = Path(path)
        path = path / "config.toml" if path.is_dir() else path
        settings = parse_settings(read_text(path), str(path))
        _check_names(settings, f" in {path}")
        for name in ("data_dir", "weights", "cache"):
            if isinstance(settings.get(name), str):
                settings[name] = str(path.absolute().parent / expand_user(settings[name]))
        try:
            return cls.for_dataset(**settings)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_settings(cls, settings: dict[str, Any], source: Path | str) -> Self:
        """The Recipe with these settings, which were read from ``source``."""
        _check_names(settings, f" in {source}")
        try:
            return cls(**settings)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """The Recipe in a ``config.toml``, which has all settings."""
        return cls.parse(read_text(path), str(path))

    def to_toml(self, version: str) -> str:
        """TOML text that ``parse`` reads back to an equal Recipe. Settings that are None are left out.

        >>> print(Recipe().to_toml("0.1.0").splitlines()[2])
        model = "resnet8"
        """
        lines = ["# The settings of this run. Again: minires train --recipe, and this file."]
        lines.append(f"minires_version = {toml_value(version)}")
        tables = []
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                tables += ["", f"[{name}]", *(f"{key} = {toml_value(v)}" for key, v in value.items())] if value else []
            elif value is not None:
                lines.append(f"{name} = {toml_value(value)}")
        return "\n".join(lines + tables) + "\n"


def named_recipes() -> dict[str, str]:
    """The names of the packaged recipes that are no data set's defaults, and what each is, in a line."""
    texts = {f.name.removesuffix(".toml"): f.read_text("utf-8") for f in NAMED.iterdir() if f.name.endswith(".toml")}
    return {name: texts[name].partition("\n")[0].removeprefix("# ") for name in sorted(texts)}


def is_real(value: object) -> bool:
    """Whether a value is a number that a finite float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _check_text(name: str, text: str) -> None:
    """Raise ConfigError for a NUL, or half of a surrogate pair: a byte of an argument or a path that is not UTF-8."""
    if re.search("[\0\ud800-\udfff]", text):
        raise ConfigError(f"{name} must be a text that UTF-8 can hold, without a NUL, not {brief(text)}")


def _check_names(settings: Iterable[str], where: str) -> None:
    names = [f.name for f in fields(Recipe)]
    for name in settings:
        if name not in names:
            raise ConfigError(f"unknown setting {brief(name)}{where}{nearest(name, names)}")
