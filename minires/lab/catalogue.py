"""The experiments by name, for the command line: how each is run from a Setting, and with which options of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import models
from ..errors import ConfigError, DataError, brief, nearest
from ..models.resnet_cifar import DEPTHS
from . import fit
from .bugs import QUICK, Bugs, Training, bugs
from .cut import Cuts, cut
from .flow import FAMILIES, Flow, flow, flow_networks
from .identity import Identity, identity, identity_networks
from .lesion import Lesion, lesion
from .paths import Paths, Progress, paths
from .refine import Refine, refine
from .responses import Responses, responses
from .result import About, Result, parsed
from .runs import control, deeper_network, of_run, run_names
from .setting import Setting, deeper, family_and_depth, normalised
from .shatter import Shatter, shatter
from .spectrum import Spectrum, spectrum
from .split import Split, split
from .truncate import Truncate, truncate


class Option(NamedTuple):
    """An option of one experiment. kind: str, int, float or bool, for ``--name``, a switch."""

    name: str
    kind: type
    default: Any
    help: str


class Experiment(NamedTuple):
    """result: the class of its results; run(setting, progress, **options) → such a result.

    defaults: of the Setting; options: those of its own; size, quick_size: width and image size where neither the user nor a run
    says them, (None, None) for the model's and the data set's; unused: fields of the Setting that it makes no use of, and
    unused_of_run: those it makes none of when it looks at a trained run.
    """

    result: type[Result]
    run: Callable[..., Result]
    defaults: dict[str, Any]
    options: tuple[Option, ...] = ()
    size: tuple[int | None, int | None] = (None, None)
    quick_size: tuple[int | None, int | None] = (None, None)
    unused: tuple[str, ...] = ()
    unused_of_run: tuple[str, ...] = ()

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
FLOW_STEPS = Option(
    "steps", int, None, "Steps of training, 100 by default (--quick: 3); it looks after 0, 1, 10, 100 …."
)
RATE = Option("lr", float, 0.1, "Learning rate.")
STEPS = Option("steps", int, None, "Steps of each training; 1000 by default, fewer with --quick.")
LONGEST = Option("longest", str, None, "Greatest path lengths, such as 0,1,3; the whole gradient is added.")
PLAIN = Option("plain", str, None, "The folder of a trained plain run, as control; without --run one is trained.")
DEEPER = Option(
    "deeper", str, None, "The folder of a trained deeper run, to compare with; without --run one is trained."
)

OF_NETWORK = ("model", "width", "image_size", "dataset", "data_dir", "run", "batch_size")  # fields of the Setting

INJECT = Option("inject", str, None, "The mistake to put in, by name, such as skip-dropped; all of them by default.")
MYSTERY = Option("mystery", int, None, "Put in a mistake that this seed chooses, without saying which.")
ANSWER = Option("answer", str, None, "Your answer to the mystery, the name of a mistake, to be graded.")


def _paths(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    draws = 8 if setting.quick else 32
    where, samples = options["at"], options["samples"]
    return paths(setting.network(), setting.batch(), where, not options["eval"], draws, samples, setting.seed, progress)


def _split(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    return split(setting.network(), setting.batch(), not options["eval"], progress)


def _refine(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    return refine(setting.network(), setting.batch(), not options["eval"], progress)


def _shatter(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.quick:
        return shatter((1, 6, 12), min(options["networks"], 6), 64, 128, (1, 2, 3, 6, 12), setting.seed, progress)
    return shatter(networks=options["networks"], seed=setting.seed, progress=progress)


def _spectrum(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    images, _ = setting.batch()
    modules = [name.strip() for name in options["at"].split(",")] if options["at"] else None
    statistics = images if setting.run is None else None
    return spectrum(setting.network(), images[0], modules, statistics, progress)


def _flow(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    last = options["steps"] if options["steps"] is not None else 3 if setting.quick else 100
    if last < 0:
        raise ConfigError(f"steps must be a whole number from 0 up, not {last}")
    steps = [n for n in (0, *(10**k for k in range(10))) if n < last] + [last]
    networks = (
        {"the run's": setting.network(np.float32)}
        if setting.run
        else flow_networks(_depth(setting), setting.seed, **_width(setting))
    )
    return flow(networks, setting.batches(last + 1, np.float32), steps, options["lr"], progress=progress)


def _width(setting: Setting) -> dict[str, Any]:
    """The width as an option of a model's constructor, if the setting has one."""
    return {} if setting.width is None else {"width": setting.width}


def _identity(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.run:
        networks = {"the run's": setting.network()}
    else:
        networks = identity_networks(_depth(setting), setting.seed, **_width(setting))
        networks = {name: network.double() for name, network in networks.items()}
    draws = 4 if setting.quick else 16
    return identity(networks, setting.batch(), True, draws, setting.seed, progress)


def _depth(setting: Setting) -> int:
    """The depth of the setting's model, of a family of CIFAR networks. Raises ConfigError for any other model."""
    if setting.model not in models.MODELS:
        models.create(setting.model)  # which says so
    family, depth = family_and_depth(setting.model)
    if family not in FAMILIES.values() or depth is None or depth not in DEPTHS:
        raise ConfigError(
            f"this experiment compares networks for CIFAR of one depth, that of --model, such as resnet56: {setting.model} is "
            "not one of them"
        )
    return depth


def _training(setting: Setting, steps: int | None, quick_steps: int) -> tuple[Any, ...]:
    """(network, training set, test set) for the trainings of an experiment, and the settings of ``fit.fit``."""
    steps = (quick_steps if setting.quick else fit.STEPS) if steps is None else steps
    options = {"steps": steps, "batch_size": setting.batch_size, "seed": setting.seed}
    return setting.network(np.float32), *fit.images_for(setting), options | {"augment": fit.augmentation(setting)}


def _truncate(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    model, train, test, how = _training(setting, options["steps"], 50)
    longest = [0, 1, 3] if setting.quick else None
    if options["longest"] is not None:
        longest = _whole_numbers("longest", options["longest"])
    return truncate(model, train, test, longest, **how, progress=progress)


def _cut(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    model, train, test, how = _training(setting, options["steps"], 70)
    return cut(model, train, test, **how, progress=progress)


def _lesion(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    of_runs = run_names(setting.run, options["plain"])
    names = of_runs[0] or setting.model, of_runs[1] or ("plain" if setting.run else fit.twin(setting.model))
    plain = None if options["plain"] is None else control(setting, options["plain"])
    train, test = fit.images_for(setting)
    some, some_test = (d.take(np.arange(min(512 if setting.quick else 2048, len(d)))) for d in (train, test))
    model = fit.network_of(setting, train, options["steps"], fit.within(progress, 0, 4, f"training {names[0]}"))
    if plain is None and setting.run is None:
        twin = setting.with_(model=names[1])
        plain = fit.network_of(twin, train, options["steps"], fit.within(progress, 1, 4, f"training {names[1]}"))
    draws = 2 if setting.quick else 10
    result = lesion(model, some_test, some, plain, names, draws, setting.seed, progress)
    if setting.run is None:
        result.settings["steps"] = fit.steps_of(setting, options["steps"])
    return result


def _responses(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    train, _ = fit.images_for(setting)
    batch = normalised(train, np.arange(min(256, len(train))), np.float32)
    steps = 150 if options["steps"] is None and setting.quick else options["steps"]
    of_runs = run_names(setting.run, options["plain"], options["deeper"])
    name = of_runs[0] or setting.model
    responses({name: setting.network(np.float32)}, batch, training=True)  # refuses what has none before it trains
    settings, pairs, networks = {name: setting}, [], {}
    if options["plain"] is not None:
        networks[of_runs[1]] = control(setting, options["plain"]).eval()
        pairs.append((name, of_runs[1]))
    elif setting.run is None:
        settings[fit.twin(setting.model)] = setting.with_(model=fit.twin(setting.model))
        pairs.append((name, fit.twin(setting.model)))
    if options["deeper"] is not None:
        networks[of_runs[2]] = deeper_network(setting, options["deeper"]).eval()
        pairs.append((of_runs[2], name))
    elif setting.run is None:
        other = fit.deeper(setting.model, setting.quick)
        settings[other] = setting.with_(model=other)
        pairs.append((other, name))
    trained = {}
    for i, (each, its) in enumerate(settings.items()):
        report = fit.within(progress, i, len(settings) + 1, f"training {each}")
        trained[each] = fit.network_of(its, train, steps, report)
    result = responses(trained | networks, batch, pairs, progress=progress)
    if setting.run is None:
        result.settings["steps"] = fit.steps_of(setting, steps)
    return result


def _whole_numbers(name: str, text: str) -> list[int]:
    """The numbers of a text such as "0,1,3". Raises ConfigError for any other."""
    parts = text.split(",")
    if not all(p.strip().isdecimal() and len(p) < 10 for p in parts):
        raise ConfigError(f"--{name} takes whole numbers with commas between them, such as 0,1,3, not {brief(text)}")
    return [int(p) for p in parts]


def _bugs(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    name, mystery, answer = options["inject"], options["mystery"], options["answer"]
    names = [name] if name is not None else list(QUICK) if setting.quick and mystery is None else None
    images, epochs = (64, 20) if setting.quick else (2000, 15)
    dataset = setting.datasets()[0]
    chosen = np.random.default_rng(setting.seed).choice(len(dataset), min(images, len(dataset)), replace=False)
    batch = normalised(dataset, chosen, np.float32)
    training = Training(epochs * (len(chosen) // setting.batch_size), setting.batch_size, seed=setting.seed)
    second = deeper(setting)
    twin = None if second is None else second.network()
    result = bugs(setting.network(), batch, names, twin, training, mystery, answer, progress)
    result.second = "" if second is None else second.model
    return result


EXPERIMENTS = {
    e.about.name: e
    for e in (
        Experiment(Paths, _paths, {"batch_size": 16}, (AT, EVALUATION, SAMPLES)),
        Experiment(Split, _split, {"batch_size": 32}, (EVALUATION,)),
        Experiment(Refine, _refine, {"batch_size": 64}, (EVALUATION,)),
        Experiment(Flow, _flow, {"model": "resnet56"}, (FLOW_STEPS, RATE), quick_size=(4, 16)),
        Experiment(Truncate, _truncate, {"batch_size": 32}, (STEPS, LONGEST), (8, 16), (8, 8)),
        Experiment(Cuts, _cut, {"batch_size": 32}, (STEPS,), (8, 16), (8, 8)),
        Experiment(Bugs, _bugs, {"model": "resnet8"}, (INJECT, MYSTERY, ANSWER), (8, 16), (8, 8)),
        Experiment(Shatter, _shatter, {}, (NETWORKS,), unused=OF_NETWORK),
        Experiment(Identity, _identity, {"model": "preresnet56"}, quick_size=(4, 16)),
        Experiment(
            Lesion, _lesion, {"batch_size": 32}, (STEPS, PLAIN), quick_size=(8, 16), unused_of_run=("batch_size",)
        ),
        Experiment(Spectrum, _spectrum, {"model": "preresnet20"}, (MODULES,), (8, 16), (16, 4)),
        Experiment(
            Responses,
            _responses,
            {"batch_size": 32},
            (STEPS, PLAIN, DEEPER),
            quick_size=(4, 16),
            unused_of_run=("batch_size", "seed"),
        ),
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
    if setting.run is not None and "run" in experiment.unused:
        raise ConfigError(f"{name} builds networks of its own, with random weights: it looks at no run")
    setting = setting.sized(*(experiment.quick_size if setting.quick else experiment.size))
    options = {option.name: options.get(option.name, option.default) for option in experiment.options}
    result = experiment.run(setting, progress, **options)
    unused = {*experiment.unused, *(() if setting.run is None else experiment.unused_of_run)}
    used = {key: value for key, value in setting.to_dict().items() if key not in unused}
    if setting.run is not None:
        used |= of_run(setting.run)
    given = {key: value for key, value in options.items() if value not in (None, False, "")}
    result.settings = {**result.settings, **used, **given}
    return result


def read(text: str) -> Result:
    """The result of a JSON text, of any experiment. Raises DataError for what is none."""
    found = parsed(text)
    name = found.get("experiment") if isinstance(found, dict) else None
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise DataError(f"this is no result of an experiment: {brief(name)}")
    return EXPERIMENTS[name].result.from_dict(found)
