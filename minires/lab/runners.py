"""How each experiment is run from a Setting and its own options: what the command line does, without its texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import models
from ..errors import ConfigError, brief
from ..models.resnet_cifar import DEPTHS
from . import fit
from .experiments.bugs import QUICK, Training, bugs
from .experiments.construct import check_depths, construct
from .experiments.cut import cut
from .experiments.deepen import DRAWS, deepen, deepened
from .experiments.degradation import curves_in, degradation, training_curve
from .experiments.flow import FAMILIES, flow, flow_networks
from .experiments.identity import identity, identity_networks
from .experiments.landscape import IMAGES, POINTS, QUICK_IMAGES, QUICK_POINTS, check, landscape
from .experiments.lesion import lesion
from .experiments.paths import paths
from .experiments.refine import refine
from .experiments.responses import responses
from .experiments.shatter import shatter
from .experiments.shortcuts import FACTORS, KINDS, shortcuts
from .experiments.spectrum import spectrum
from .experiments.split import split
from .experiments.truncate import truncate
from .result import Progress, Result
from .runs import control, deeper_network, other_network, run_names
from .setting import Setting, deeper, family_and_depth, normalised


def run_paths(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    draws = 8 if setting.quick else 32
    where, samples = options["at"], options["samples"]
    return paths(setting.network(), setting.batch(), where, not options["eval"], draws, samples, setting.seed, progress)


def run_split(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    return split(setting.network(), setting.batch(), not options["eval"], progress)


def run_refine(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    return refine(setting.network(), setting.batch(), not options["eval"], progress)


def run_shatter(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.quick:
        return shatter((1, 6, 12), min(options["networks"], 6), 64, 128, (1, 2, 3, 6, 12), setting.seed, progress)
    return shatter(networks=options["networks"], seed=setting.seed, progress=progress)


def run_spectrum(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    images, _ = setting.batch()
    modules = [name.strip() for name in options["at"].split(",")] if options["at"] else None
    statistics = images if setting.run is None else None
    return spectrum(setting.network(), images[0], modules, statistics, progress)


def run_flow(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    last = options["steps"] if options["steps"] is not None else 3 if setting.quick else 100
    if last < 0:
        raise ConfigError(f"steps must be a whole number from 0 up, not {last}")
    steps = [n for n in (0, *(10**k for k in range(10))) if n < last] + [last]
    networks = (
        {"the run's": setting.network(np.float32)}
        if setting.run
        else flow_networks(_depth(setting), setting.seed, num_classes=setting.num_classes, **_width(setting))
    )
    return flow(networks, setting.batches(last + 1, np.float32), steps, options["lr"], progress=progress)


def _width(setting: Setting) -> dict[str, Any]:
    """The width as an option of a model's constructor, if the setting has one."""
    return {} if setting.width is None else {"width": setting.width}


def run_identity(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.run:
        networks = {"the run's": setting.network()}
    else:
        own = {"num_classes": setting.num_classes, **_width(setting)}
        networks = identity_networks(_depth(setting), setting.seed, **own)
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


def run_truncate(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    model, train, test, how = _training(setting, options["steps"], 50)
    longest = [0, 1, 3] if setting.quick else None
    if options["longest"] is not None:
        longest = _whole_numbers("longest", options["longest"])
    return truncate(model, train, test, longest, **how, progress=progress)


def run_cut(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    model, train, test, how = _training(setting, options["steps"], 70)
    return cut(model, train, test, **how, progress=progress)


def run_deepen(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    steps, at, draws = options["steps"], options["at"], 4 if setting.quick else DRAWS
    if steps is not None and steps < 0:
        raise ConfigError(f"steps must be a whole number from 0 up, not {steps}")
    batches = setting.batches(2 if setting.quick and setting.run is None else 6, np.float32)
    if setting.run is not None:
        if steps is not None:
            raise ConfigError(
                "--steps is for a training from the beginning: with --run the run's own steps are looked at"
            )
        return deepened(setting.first_and_last(np.float32), batches, at, draws, setting.seed, progress)
    steps = steps if steps is not None else 40 if setting.quick else fit.STEPS
    usual = (0, 10) if setting.quick else (0, *(digit * 10**k for k in range(7) for digit in (1, 3)))
    looks = [*(n for n in usual if n < steps), steps]
    networks = [setting.with_(seed=setting.seed + i).network(np.float32) for i in range(3)]
    train, _ = fit.images_for(setting)
    how: dict[str, Any] = {"batch_size": setting.batch_size, "seed": setting.seed}
    how["augment"] = fit.augmentation(setting)
    return deepen(networks, train, batches, looks, at, draws, **how, progress=progress)


def run_shortcuts(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    model, train, test, how = _training(setting, options["steps"], 40)
    how |= {"trainings": options["trainings"], "gate_bias": options["gate_bias"]}
    factors = (0.5, 1.0, 1.5) if setting.quick else FACTORS
    return shortcuts(model, train, test, KINDS, factors, **how, progress=progress)


def _with_control(setting: Setting, plain: str | None) -> tuple[str, str]:
    """What to call the setting's network and its plain control, of a run or trained beside it."""
    of_runs = run_names(setting.run, plain)
    return of_runs[0] or setting.model, of_runs[1] or ("plain" if setting.run else fit.twin(setting.model))


OF_SHORTCUTS = ("option", "shortcut", "zero_init_residual", "stochastic_depth")  # options that plain networks have not


def _twin(setting: Setting, name: str) -> Setting:
    """The setting with the plain network of that name. Raises ConfigError, before anything is trained, if it cannot be made."""
    own = {key: value for key, value in setting.model_options.items() if key not in OF_SHORTCUTS}
    found = setting.with_(model=name, model_options=own)
    found.network(np.float32)
    return found


def _check_steps(setting: Setting, steps: int | None) -> None:
    """Raise ConfigError for steps of a training that there is not."""
    if setting.run is not None and steps is not None:
        raise ConfigError("--steps is for networks that are trained here: leave it out with --run")


def run_lesion(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    _check_steps(setting, options["steps"])
    names = _with_control(setting, options["plain"])
    plain = None if options["plain"] is None else control(setting, options["plain"])
    train, test = fit.images_for(setting)
    some, some_test = (d.take(np.arange(min(512 if setting.quick else 2048, len(d)))) for d in (train, test))
    twin = _twin(setting, names[1]) if plain is None and setting.run is None else None
    model = fit.network_of(setting, train, options["steps"], fit.within(progress, 0, 4, f"training {names[0]}"))
    if twin is not None:
        plain = fit.network_of(twin, train, options["steps"], fit.within(progress, 1, 4, f"training {names[1]}"))
    draws = 2 if setting.quick else 10
    result = lesion(model, some_test, some, plain, names, draws, setting.seed, progress)
    if setting.run is None:
        result.settings["steps"] = fit.steps_of(setting, options["steps"])
    return result


def run_responses(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    _check_steps(setting, options["steps"])
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
        settings[fit.twin(setting.model)] = _twin(setting, fit.twin(setting.model))
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


def run_landscape(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    _check_steps(setting, options["steps"])
    names = _with_control(setting, options["plain"])
    control_run = None if options["plain"] is None else control(setting, options["plain"])
    points, images = options["points"], options["images"]
    points = (QUICK_POINTS if setting.quick else POINTS) if points is None else points
    images = (QUICK_IMAGES if setting.quick else IMAGES) if images is None else images
    check(points, options["span"], options["statistics"], setting.batch_size, images)
    train, _ = fit.images_for(setting)
    if images > len(train):
        raise ConfigError(f"{images:,} images are more than the {len(train):,} training images that there are")
    settings = [setting]
    if control_run is None and setting.run is None:
        settings.append(_twin(setting, names[1]))
    networks = []
    for i, (name, its) in enumerate(zip(names, settings)):
        if options["steps"] == 0:
            networks.append(its.network(np.float32))
            continue
        report = fit.within(progress, i, 20, f"training {name}")
        networks.append(fit.network_of(its.with_(batch_size=32), train, options["steps"], report))
    networks += [] if control_run is None else [control_run]
    chosen = np.random.default_rng(setting.seed).choice(len(train), images, replace=False)
    batch = normalised(train, np.sort(chosen), np.float32)
    plain = networks[1] if len(networks) > 1 else None
    how = {"span": options["span"], "statistics": options["statistics"], "batch_size": setting.batch_size}
    how |= {"seed": setting.seed, "folder": setting.out, "say": setting.say, "progress": progress}
    return landscape(networks[0], batch, plain, names, points, **how)


def run_degradation(setting: Setting, progress: Progress | None, **options: Any) -> Result:
    if setting.run is not None:
        raise ConfigError("degradation compares several networks: give --trained, a folder of runs, in place of --run")
    if options["trained"] is not None:
        for name in ("depths", "steps"):
            if options[name] is not None:
                raise ConfigError(f"--trained compares the runs that are there: leave --{name} out")
        return degradation(curves_in(options["trained"]), "epoch")
    families = [family_and_depth(name)[0] for name in (fit.twin(setting.model), setting.model)]
    if options["depths"] is not None:
        depths = _whole_numbers("depths", options["depths"])
    else:
        both = (family_and_depth(name)[1] for name in (setting.model, fit.deeper(setting.model, setting.quick)))
        depths = [depth for depth in both if depth is not None]
    settings = {f"{families[0]}{d}": _twin(setting, f"{families[0]}{d}") for d in depths}
    settings |= {f"{families[1]}{d}": setting.with_(model=f"{families[1]}{d}") for d in depths}
    networks = {name: its.network(np.float32) for name, its in settings.items()}  # refuses before it trains
    steps = options["steps"] if options["steps"] is not None else 200 if setting.quick else fit.STEPS
    how: dict[str, Any] = {"steps": steps, "batch_size": setting.batch_size, "seed": setting.seed}
    (train, test), augment, curves = fit.images_for(setting), fit.augmentation(setting), {}
    for i, (name, network) in enumerate(networks.items()):
        part = fit.within(progress, i, len(networks), f"training {name}")
        curves[name] = training_curve(network, train, test, augment=augment, progress=part, **how)
    return degradation(curves)


def run_construct(setting: Setting, progress: Progress | None, **options: Any) -> Result:
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
        networks.append(network if run is None else other_network(setting, run).train())
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
    options.pop("aux_weight", None)  # of training: what is made like it has it or not
    return recipe.model, options, checkpoint.info["step"]


def _whole_numbers(name: str, text: str) -> list[int]:
    """The numbers of a text such as "0,1,3". Raises ConfigError for any other."""
    parts = text.split(",")
    if not all(p.strip().isdecimal() and len(p) < 10 for p in parts):
        raise ConfigError(f"--{name} takes whole numbers with commas between them, such as 0,1,3, not {brief(text)}")
    return [int(p) for p in parts]


def run_bugs(setting: Setting, progress: Progress | None, **options: Any) -> Result:
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
