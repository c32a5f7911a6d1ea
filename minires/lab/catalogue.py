"""The experiments by name, for the command line: how each is run from a Setting, and with which options of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError, brief, nearest
from .paths import Paths, Progress, paths
from .refine import Refine, refine
from .result import About, Result, parsed
from .setting import Setting
from .shatter import Shatter, shatter
from .spectrum import Spectrum, spectrum
from .split import Split, split


class Option(NamedTuple):
    """An option of one experiment. kind: str, int, float or bool, for ``--name``, a switch."""

    name: str
    kind: type
    default: Any
    help: str


class Experiment(NamedTuple):
    """result: the class of its results; run(setting, progress, **options) → such a result.

    defaults: of the Setting; options: those of its own.
    """

    result: type[Result]
    run: Callable[..., Result]
    defaults: dict[str, Any]
    options: tuple[Option, ...] = ()

    @property
    def about(self) -> About:
        return self.result.about


EVALUATION = Option("eval", bool, False, "Batch norm with its running statistics, not with the batch's.")
AT = Option(
    "at", str, "input", "Where the gradient is looked at: input (the default), stem, or a module such as layer2.0."
)
SAMPLES = Option("samples", int, 0, "Single paths of each length to sample, as Veit et al. did; none by default.")
NETWORKS = Option("networks", int, 20, "Random networks of each kind, whose mean is taken; 20 by default.")
MODULES = Option("at", str, "", "Modules, separated by commas, such as layer1; by default all blocks and stages.")


def _paths(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    draws = 8 if setting.quick else 32
    where, samples = options["at"], options["samples"]
    return paths(setting.network(), setting.batch(), where, not options["eval"], draws, samples, setting.seed, progress)


def _split(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    return split(setting.network(), setting.batch(), not options["eval"], progress)


def _refine(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    return refine(setting.network(), setting.batch(), not options["eval"], progress)


def _shatter(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.run is not None:
        raise ConfigError("shatter builds perceptrons of its own, with random weights: it takes no --run")
    if setting.quick:
        return shatter((1, 6, 12), min(options["networks"], 6), 64, 128, (1, 2, 3, 6, 12), setting.seed, progress)
    return shatter(networks=options["networks"], seed=setting.seed, progress=progress)


def _spectrum(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.run is None:  # the numbers of a run's network are what they are
        width, size = (16, 4) if setting.quick else (8, 16)
        setting = setting.with_(width=setting.width or width, image_size=setting.image_size or size)
    images, _ = setting.batch()
    modules = [name.strip() for name in options["at"].split(",")] if options["at"] else None
    statistics = images if setting.run is None else None
    result = spectrum(setting.network(), images[0], modules, statistics, progress)
    result.settings |= setting.to_dict()
    return result


EXPERIMENTS = {
    e.about.name: e
    for e in (
        Experiment(Paths, _paths, {"batch_size": 16}, (AT, EVALUATION, SAMPLES)),
        Experiment(Split, _split, {"batch_size": 32}, (EVALUATION,)),
        Experiment(Refine, _refine, {"batch_size": 64}, (EVALUATION,)),
        Experiment(Shatter, _shatter, {}, (NETWORKS,)),
        Experiment(Spectrum, _spectrum, {"model": "preresnet20"}, (MODULES,)),
    )
}


def find(name: str) -> Experiment:
    """The experiment called ``name``. Raises ConfigError for an unknown one."""
    if name not in EXPERIMENTS:
        raise ConfigError(
            f"unknown experiment {name!r}{nearest(name, EXPERIMENTS)}: choose one of {', '.join(EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]


def run(name: str, setting: Setting, progress: Progress | None = None, **options: Any) -> Result:
    """Run an experiment. options: of its own; those that are missing have their defaults."""
    experiment = find(name)
    options = {option.name: options.get(option.name, option.default) for option in experiment.options}
    result = experiment.run(setting, progress, **options)
    given = {key: value for key, value in options.items() if value not in (None, False)}
    result.settings = {**result.settings, **setting.to_dict(), **given}
    return result


def read(text: str) -> Result:
    """The result of a JSON text, of any experiment. Raises DataError for what is none."""
    found = parsed(text)
    name = found.get("experiment") if isinstance(found, dict) else None
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise DataError(f"this is no result of an experiment: {brief(name)}")
    return EXPERIMENTS[name].result.from_dict(found)
