"""A Recipe holds every setting that decides what a training run computes. It is written to the run's ``config.toml``.

The defaults of a dataset stand in ``recipes/<dataset>.toml``; what the user says wins over them.
"""

import math
import tomllib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path

from .. import data
from ..errors import ConfigError, nearest
from ..kernels.switches import winograd
from ..lazy import fusion

SCHEDULES = {"one-cycle": 0.3, "cosine": 0.0, "linear": 0.2, "multi-step": 0.0, "constant": 0.0}  # name -> usual warmup
DEFAULTS = resources.files(__package__) / "recipes"


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, and how. Raises ConfigError when a value cannot work, with the value and the way out.

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
    val: int = 0  # training images held out for validation
    epochs: int = 5
    batch_size: int = 128
    seed: int = 0  # of the initialisation, the order of the images and their augmentation
    threads: int | None = None  # None: one a physical core. Never changes a bit of the result
    # optimizer: SGD
    lr: float = 0.1  # the peak of the schedule
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norms: bool = False  # decay the weights of batch norms and the biases too
    label_smoothing: float = 0.0
    # schedule
    schedule: str = "one-cycle"
    warmup: float = 0.3  # the part of the run in which lr rises to its peak
    milestones: tuple = (0.5, 0.75)  # multi-step: the parts of the run after which lr is multiplied by gamma
    gamma: float = 0.1
    # augmentation
    crop: int = 4  # pixels of padding to crop from; 0 for none
    reflect: bool = False  # pad by reflection, not with zeros
    flip: bool = True
    cutout: int = 0  # side of the square that is blanked out; 0 for none
    # kernels: either way the values are the same up to rounding
    fusion: bool = True  # operations of a block run as one where nobody watches what is between them; False: op by op
    winograd: bool = True  # convolutions go Winograd's way where the committed table says that it is faster

    def __post_init__(self):
        self._types()
        for name in ("epochs", "batch_size", "threads"):
            self._whole(name, 1)
        for name in ("val", "seed", "crop", "cutout"):
            self._whole(name, 0)
        self._real("lr", above=0)
        self._real("weight_decay", least=0)
        self._real("momentum", least=0, below=1)
        self._real("label_smoothing", least=0, below=1)
        self._real("gamma", above=0)
        self._real("warmup", least=0, below=1)
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"unknown schedule {self.schedule!r}{nearest(self.schedule, SCHEDULES)}: "
                f"choose one of {', '.join(SCHEDULES)}"
            )
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov needs a momentum above 0: give one, or switch nesterov off")
        points = (0, *self.milestones, 1)
        if not all(map(_is_real, points)) or not all(a < b for a, b in pairwise(points)):
            raise ConfigError(f"milestones are rising parts of the run between 0 and 1, not {list(self.milestones)}")

    def _types(self):
        kinds = {bool: "true or false", str: "a text", tuple: "a list", dict: "a table", str | None: "a text"}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is tuple and isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))
            elif f.type in kinds and not isinstance(value, f.type):
                raise ConfigError(f"{f.name} must be {kinds[f.type]}, not {value!r}")

    def _whole(self, name, least):
        value = getattr(self, name)
        if value is None and name == "threads":
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} must be a whole number from {least} up, not {value!r}")

    def _real(self, name, least=-math.inf, above=-math.inf, below=math.inf):
        value = getattr(self, name)
        if not _is_real(value) or not (value >= least and value > above and value < below):
            limits = [f"from {least:g} up"] * (least > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
            limits += [f"below {below:g}"] * (below < math.inf)
            raise ConfigError(f"{name} must be a number {' and '.join(limits)}, not {value!r}")

    @classmethod
    def for_dataset(cls, dataset="shapes", **settings):
        """The defaults of a dataset, with ``settings`` over them. Raises ConfigError for an unknown setting."""
        path = DEFAULTS / f"{dataset}.toml"
        if not path.is_file():
            known = data.names()
            raise ConfigError(f"unknown data set {dataset!r}{nearest(dataset, known)}: there are {', '.join(known)}")
        defaults = cls.parse(path.read_text("utf-8"), path.name)
        return defaults.with_settings(**settings)

    def with_settings(self, **settings):
        """A copy with some settings changed. A new schedule brings its usual warmup along, unless one is given."""
        _check_names(settings, "")
        if settings.get("schedule", self.schedule) != self.schedule:
            settings = {"warmup": SCHEDULES.get(settings["schedule"], 0.0), **settings}
        return replace(self, **settings)

    @contextmanager
    def switches(self):
        """``with recipe.switches():`` runs what is inside with fusing and Winograd as the recipe says."""
        with fusion(self.fusion), winograd(self.winograd):
            yield

    @classmethod
    def parse(cls, text, source="recipe"):
        """Read TOML text: one ``setting = value`` a line. ``source`` is named in errors."""
        return cls.from_settings(_settings(text, source), source)

    @classmethod
    def from_file(cls, path):
        """The recipe of a TOML file, or of a run's folder; what it does not say is the default of its dataset.

        A ``data_dir`` that is no absolute path is seen from the file's folder.
        """
        path = Path(path)
        path = path / "config.toml" if path.is_dir() else path
        settings = _settings(_text(path), str(path))
        _check_names(settings, f" in {path}")
        if isinstance(settings.get("data_dir"), str):
            settings["data_dir"] = str(path.absolute().parent / Path(settings["data_dir"]).expanduser())
        try:
            return cls.for_dataset(**settings)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_settings(cls, settings, source):
        """The recipe of a dict of settings that was read from ``source``."""
        _check_names(settings, f" in {source}")
        try:
            return cls(**settings)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    @classmethod
    def read(cls, path):
        """Read a ``config.toml``."""
        return cls.parse(_text(path), str(path))

    def to_toml(self, version):
        """TOML text that ``parse`` reads back to an equal Recipe. A setting that is None is left out.

        >>> print(Recipe().to_toml("0.1.0").splitlines()[2])
        model = "resnet8"
        """
        lines = ["# The settings of this run. Again: minires train --recipe, and this file."]
        lines.append(f"minires_version = {_toml(version)}")
        tables = []
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                tables += ["", f"[{name}]", *(f"{key} = {_toml(v)}" for key, v in value.items())] if value else []
            elif value is not None:
                lines.append(f"{name} = {_toml(value)}")
        return "\n".join(lines + tables) + "\n"


def _text(path):
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror}): a recipe is a TOML file, such as the config.toml of a run"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is no text (UTF-8): a recipe is a TOML file, such as the config.toml of a run"
        ) from error


def _settings(text, source):
    """The settings in TOML text, unchecked."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from error
    settings.pop("minires_version", None)
    return settings


def _is_real(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_names(settings, where):
    names = [f.name for f in fields(Recipe)]
    for name in settings:
        if name not in names:
            raise ConfigError(f"unknown setting {name!r}{where}{nearest(name, names)}")


def _toml(value):
    """One TOML value: a string, a boolean, a number or an array of them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in escaped) + '"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # the shortest text that reads back to the same bits
    return str(value)
