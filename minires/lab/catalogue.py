"""The experiments by name, for the command line: how each is run from a Setting, and with which options of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import models
from ..errors import ConfigError, DataError, brief, nearest
from ..models.resnet_cifar import DEPTHS
from ..nn import Module
from . import fit
from .bugs import QUICK, Bugs, Training, bugs
from .construct import Construct, check_depths, construct
from .cut import Cuts, cut
from .deepen import DRAWS, LOOKS, Deepen, deepen, deepened
from .degradation import Degradation, curves_in, degradation, training_curve
from .flow import FAMILIES, Flow, flow, flow_networks
from .identity import Identity, identity, identity_networks
from .landscape import IMAGES, POINTS, QUICK_IMAGES, QUICK_POINTS, Landscape, check, landscape
from .lesion import Lesion, lesion
from .paths import Paths, Progress, paths
from .refine import Refine, refine
from .responses import Responses, responses
from .result import About, Result, parsed
from .setting import Setting, deeper, family_and_depth, normalised
from .shatter import Shatter, shatter
from .shortcuts import FACTORS, GATE_BIAS, KINDS, Shortcuts, shortcuts
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
    says them, (None, None) for the model's and the data set's.
    """

    result: type[Result]
    run: Callable[..., Result]
    defaults: dict[str, Any]
    options: tuple[Option, ...] = ()
    size: tuple[int | None, int | None] = (None, None)
    quick_size: tuple[int | None, int | None] = (None, None)

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
TRAINING_STEPS = Option("steps", int, None, "Steps of the training, 1000 by default (--quick: 40); not with --run.")
TRAININGS = Option("trainings", int, 1, "Trainings of each kind, with other batches; 1 by default.")
GATES = Option("gate_bias", float, GATE_BIAS, "Biases of gates before training; -6 by default.")
LONGEST = Option("longest", str, None, "Greatest path lengths, such as 0,1,3; the whole gradient is added.")
PLAIN = Option("plain", str, None, "The folder of a trained plain run, as control; without --run one is trained.")
DEEPER = Option(
    "deeper", str, None, "The folder of a trained deeper run, to compare with; without --run one is trained."
)
POINTS_OPTION = Option("points", int, None, "Points of the plane along each direction; 51 by default (--quick: 11).")
IMAGES_OPTION = Option(
    "images", int, None, "Training images that the loss is the mean of; 1280 by default (--quick: 128)."
)
SPAN = Option("span", float, 1.0, "How far the plane goes each way, in norms of the filters; 1 by default.")
STATISTICS = Option(
    "statistics", str, "stored", "Of batch norm: stored (the default), or batch for those of each batch."
)
STEPS_OR_NONE = Option(
    "steps", int, None, "Steps of each training without --run; 1000 by default, fewer with --quick, none with 0."
)

TRAINED = Option("trained", str, None, "A folder of trained runs, such as `minires lab train` makes, to compare those.")
LAYERS = Option(
    "depths", str, None, "Depths to compare, such as 20,56,110; that of --model and a deeper one by default."
)
AUXILIARY = Option("auxiliary", str, None, "The folder of a trained deeper run with an auxiliary classifier.")

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
    if setting.run is not None:
        raise ConfigError("shatter builds perceptrons of its own, with random weights: it takes no --run")
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
    if setting.model_options:
        raise ConfigError("this experiment compares networks with all options: it takes no --model-option")
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
    model, train, test, how = _training(setting, options["steps"], 70)
    longest = [0, 1, 3] if setting.quick else None
    if options["longest"] is not None:
        longest = _whole_numbers("longest", options["longest"])
    return truncate(model, train, test, longest, **how, progress=progress)


def _cut(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    model, train, test, how = _training(setting, options["steps"], 120)
    return cut(model, train, test, **how, progress=progress)


def _deepen(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    steps, at, draws = options["steps"], options["at"], 4 if setting.quick else DRAWS
    batches = setting.batches(2 if setting.quick and setting.run is None else 6, np.float32)
    if setting.run is not None:
        if steps is not None:
            raise ConfigError(
                "--steps is for a training from the beginning: with --run the run's own steps are looked at"
            )
        return deepened(setting.first_and_last(np.float32), batches, at, draws, setting.seed, progress)
    steps = steps if steps is not None else 40 if setting.quick else fit.STEPS
    looks = [*(n for n in ((0, 10) if setting.quick else LOOKS) if n < steps), steps]
    networks = [setting.with_(seed=setting.seed + i).network(np.float32) for i in range(3)]
    train, _ = fit.images_for(setting)
    how: dict[str, Any] = {"batch_size": setting.batch_size, "seed": setting.seed}
    how["augment"] = fit.augmentation(setting)
    return deepen(networks, train, batches, looks, at, draws, **how, progress=progress)


def _shortcuts(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    model, train, test, how = _training(setting, options["steps"], 40)
    how |= {"trainings": options["trainings"], "gate_bias": options["gate_bias"]}
    factors = (0.5, 1.0, 1.5) if setting.quick else FACTORS
    return shortcuts(model, train, test, KINDS, factors, **how, progress=progress)


def _lesion(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    names = setting.run or setting.model, options["plain"] or ("plain" if setting.run else fit.twin(setting.model))
    train, test = fit.images_for(setting)
    some, some_test = (d.take(np.arange(min(512 if setting.quick else 2048, len(d)))) for d in (train, test))
    model = fit.network_of(setting, train, options["steps"], fit.within(progress, 0, 4, f"training {names[0]}"))
    plain: Module | None = None
    if options["plain"] is not None:
        plain = setting.with_(run=options["plain"]).network(np.float32)
    elif setting.run is None:
        control = setting.with_(model=names[1])
        plain = fit.network_of(control, train, options["steps"], fit.within(progress, 1, 4, f"training {names[1]}"))
    draws = 2 if setting.quick else 10
    return lesion(model, some_test, some, plain, names, draws, setting.seed, progress)


def _responses(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    train, _ = fit.images_for(setting)
    batch = normalised(train, np.arange(min(256, len(train))), np.float32)
    name = setting.run or setting.model
    responses(
        {name: setting.network(np.float32)}, batch, training=True
    )  # refuses what cannot be compared before it trains
    settings, pairs = {name: setting}, []
    for option, found in (("plain", fit.twin), ("deeper", partial(fit.deeper, quick=setting.quick))):
        if options[option] is not None:
            other, settings[options[option]] = options[option], setting.with_(run=options[option])
        elif setting.run is None:
            other = found(setting.model)
            settings[other] = setting.with_(model=other)
        else:
            continue
        pairs.append((name, other) if option == "plain" else (other, name))
    networks = {}
    for i, (each, its) in enumerate(settings.items()):
        report = fit.within(progress, i, len(settings) + 1, f"training {each}")
        networks[each] = fit.network_of(its, train, options["steps"] or (150 if setting.quick else None), report)
    return responses(networks, batch, pairs, progress=progress)


def _landscape(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    names = setting.run or setting.model, options["plain"] or ("plain" if setting.run else fit.twin(setting.model))
    points, images = options["points"], options["images"]
    points = (QUICK_POINTS if setting.quick else POINTS) if points is None else points
    images = (QUICK_IMAGES if setting.quick else IMAGES) if images is None else images
    check(points, options["span"], options["statistics"], setting.batch_size, images)
    train, _ = fit.images_for(setting)
    if images > len(train):
        raise ConfigError(f"{images:,} images are more than the {len(train):,} training images that there are")
    settings = [setting]
    if options["plain"] is not None or setting.run is None:
        settings.append(setting.with_(run=options["plain"], model=names[1] if setting.run is None else setting.model))
    networks = []
    for i, (name, its) in enumerate(zip(names, settings)):
        if options["steps"] == 0:
            networks.append(its.network(np.float32))
            continue
        report = fit.within(progress, i, 20, f"training {name}")
        networks.append(fit.network_of(its.with_(batch_size=32), train, options["steps"], report))
    chosen = np.random.default_rng(setting.seed).choice(len(train), images, replace=False)
    batch = normalised(train, np.sort(chosen), np.float32)
    plain = networks[1] if len(networks) > 1 else None
    how = {"span": options["span"], "statistics": options["statistics"], "batch_size": setting.batch_size}
    how |= {"seed": setting.seed, "folder": setting.out, "say": setting.say, "progress": progress}
    return landscape(networks[0], batch, plain, names, points, **how)


def _degradation(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.run is not None:
        raise ConfigError("degradation compares several networks: give --trained, a folder of runs, in place of --run")
    if options["trained"] is not None:
        return degradation(curves_in(options["trained"]), "epoch")
    families = [family_and_depth(name)[0] for name in (fit.twin(setting.model), setting.model)]
    depths = [
        d
        for name in (setting.model, fit.deeper(setting.model, setting.quick))
        if (d := family_and_depth(name)[1]) is not None
    ]
    if options["depths"] is not None:
        depths = _whole_numbers("depths", options["depths"])
    settings = {s.model: s for s in (setting.with_(model=f"{f}{d}") for f in families for d in depths)}
    networks = {name: its.network(np.float32) for name, its in settings.items()}  # refuses before it trains
    steps = options["steps"] if options["steps"] is not None else 200 if setting.quick else fit.STEPS
    how: dict[str, Any] = {"steps": steps, "batch_size": setting.batch_size, "seed": setting.seed}
    (train, test), augment, curves = fit.images_for(setting), fit.augmentation(setting), {}
    for i, (name, network) in enumerate(networks.items()):
        part = fit.within(progress, i, len(networks), f"training {name}")
        curves[name] = training_curve(network, train, test, augment=augment, progress=part, **how)
    return degradation(curves)


def _construct(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    steps, first = (30, 150) if setting.quick else (fit.STEPS, fit.STEPS)  # from the construction, and before it
    if options["steps"] is not None:
        steps = first = options["steps"]
    train, _ = fit.images_for(setting)
    name, own = setting.model, _width(setting)
    if setting.run is not None:
        name, own, _ = _of_run(setting.run)
    new = setting.with_(run=None, model=fit.deeper(name, setting.quick), width=None)
    deep, auxiliary = new.network(np.float32, **own), new.network(np.float32, **own, aux_weight=0.3)
    runs, networks, trained = (setting.run, options["deeper"], options["auxiliary"]), [], []
    for run, network in zip(runs, (setting.network(np.float32), deep, auxiliary)):
        networks.append(network if run is None else setting.with_(run=run).network(np.float32))
        trained.append(0 if run is None else _of_run(run)[2])
    how: dict[str, Any] = {"batch_size": setting.batch_size, "seed": setting.seed, "augment": fit.augmentation(setting)}
    check_depths(networks[0], networks[1])
    if setting.run is None:  # else the new networks start from here
        for i, (run, network, what) in enumerate(zip(runs, networks, ("shallow", "deep", "auxiliary"))):
            if run is None:
                report = fit.within(progress, i, 6, f"training the {what} network")
                trained[i] = int(np.isfinite(fit.fit(network, train, first, **how, progress=report)).sum())
                fit.estimate_statistics(network, train)
    report = fit.within(progress, 1, 2, "training on")
    return construct(networks[0], networks[1], train, networks[2], trained, steps, **how, progress=report)


def _of_run(run: str) -> tuple[str, dict[str, Any], int]:
    """The name of a run's model, the options of its constructor, and the steps that it was trained for."""
    from .. import training

    recipe, _, checkpoint = training.load_run(run)
    options = {**recipe.model_options, "num_classes": checkpoint.info["num_classes"]}
    return recipe.model, options, checkpoint.info["step"]


def _whole_numbers(name: str, text: str) -> list[int]:
    """The numbers of a text such as "0,1,3". Raises ConfigError for any other."""
    parts = text.split(",")
    if not all(p.strip().isdecimal() and len(p) < 10 for p in parts):
        raise ConfigError(f"--{name} takes whole numbers with commas between them, such as 0,1,3, not {brief(text)}")
    return [int(p) for p in parts]


def _bugs(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    name, mystery, answer = options["inject"], options["mystery"], options["answer"]
    names = [name] if name is not None else list(QUICK) if setting.quick and mystery is None else None
    images, epochs = (256, 6) if setting.quick else (2000, 15)
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
        Experiment(Truncate, _truncate, {"batch_size": 32}, (STEPS, LONGEST), (8, 16), (4, 16)),
        Experiment(Cuts, _cut, {"batch_size": 32}, (STEPS,), (8, 16), (4, 16)),
        Experiment(Bugs, _bugs, {"model": "resnet8"}, (INJECT, MYSTERY, ANSWER), (8, 16), (8, 16)),
        Experiment(Shatter, _shatter, {}, (NETWORKS,)),
        Experiment(Identity, _identity, {"model": "preresnet56"}, quick_size=(4, 16)),
        Experiment(Deepen, _deepen, {"batch_size": 32}, (TRAINING_STEPS, AT), (8, 16), (4, 16)),
        Experiment(Lesion, _lesion, {"batch_size": 32}, (STEPS, PLAIN), quick_size=(8, 16)),
        Experiment(Shortcuts, _shortcuts, {"batch_size": 32}, (STEPS, TRAININGS, GATES), (8, 16), (4, 16)),
        Experiment(Degradation, _degradation, {"batch_size": 32}, (STEPS, LAYERS, TRAINED), (8, 16), (4, 8)),
        Experiment(Construct, _construct, {"model": "plain20"}, (STEPS, DEEPER, AUXILIARY), (8, 16), (4, 8)),
        Experiment(Spectrum, _spectrum, {"model": "preresnet20"}, (MODULES,), (8, 16), (16, 4)),
        Experiment(
            *(Landscape, _landscape, {"batch_size": 128}),
            (POINTS_OPTION, IMAGES_OPTION, SPAN, STATISTICS, PLAIN, STEPS_OR_NONE),
            *((8, 16), (8, 16)),
        ),
        Experiment(Responses, _responses, {"batch_size": 32}, (STEPS, PLAIN, DEEPER), quick_size=(4, 16)),
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
    setting = setting.sized(*(experiment.quick_size if setting.quick else experiment.size))
    options = {option.name: options.get(option.name, option.default) for option in experiment.options}
    result = experiment.run(setting, progress, **options)
    given = {key: value for key, value in options.items() if value not in (None, False)}
    shown = setting.with_(run=options["trained"]) if options.get("trained") is not None else setting
    result.settings = {**result.settings, **shown.to_dict(), **given}
    return result


def read(text: str) -> Result:
    """The result of a JSON text, of any experiment. Raises DataError for what is none."""
    found = parsed(text)
    name = found.get("experiment") if isinstance(found, dict) else None
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise DataError(f"this is no result of an experiment: {brief(name)}")
    return EXPERIMENTS[name].result.from_dict(found)
