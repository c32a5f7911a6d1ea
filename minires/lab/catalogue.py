"""The experiments by name, for the command line: how each is run from a Setting, and with which options of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError, brief, nearest
from . import runners
from .experiments.bugs import Bugs
from .experiments.construct import Construct
from .experiments.cut import Cuts
from .experiments.deepen import Deepen
from .experiments.degradation import Degradation
from .experiments.flow import Flow
from .experiments.identity import Identity
from .experiments.landscape import Landscape
from .experiments.lesion import Lesion
from .experiments.paths import Paths
from .experiments.refine import Refine
from .experiments.responses import Responses
from .experiments.shatter import Shatter
from .experiments.shortcuts import GATE_BIAS, Shortcuts
from .experiments.spectrum import Spectrum
from .experiments.split import Split
from .experiments.truncate import Truncate
from .result import About, Progress, Result, parsed
from .runs import of_run
from .setting import Setting

# fields of the Setting that say which network, and which images
OF_NETWORK = ("model", "model_options", "width", "image_size", "dataset", "data_dir", "run", "batch_size")


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
TRAINING_STEPS = Option("steps", int, None, "Steps of the training, 1000 by default (--quick: 40); not with --run.")
TRAININGS = Option("trainings", int, 1, "Trainings of each kind, with other batches; 1 by default.")
GATES = Option("gate_bias", float, GATE_BIAS, "Biases of gates before training; -6 by default.")
LONGEST = Option("longest", str, None, "Greatest path lengths, such as 0,1,3; the whole gradient is added.")
PLAIN = Option("plain", str, None, "The folder of a trained plain run, as control; without --run one is trained.")
DEEPER = Option(
    "deeper", str, None, "The folder of a trained deeper run, to compare with; without --run one is trained."
)
POINTS = Option("points", int, None, "Points of the plane along each direction; 51 by default (--quick: 11).")
IMAGES = Option("images", int, None, "Training images that the loss is the mean of; 1280 by default (--quick: 128).")
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


EXPERIMENTS = {
    e.about.name: e
    for e in (
        Experiment(Paths, runners.run_paths, {"batch_size": 16}, (AT, EVALUATION, SAMPLES)),
        Experiment(Split, runners.run_split, {"batch_size": 32}, (EVALUATION,)),
        Experiment(Refine, runners.run_refine, {"batch_size": 64}, (EVALUATION,)),
        Experiment(Flow, runners.run_flow, {"model": "resnet56"}, (FLOW_STEPS, RATE), quick_size=(4, 16)),
        Experiment(Truncate, runners.run_truncate, {"batch_size": 32}, (STEPS, LONGEST), (8, 16), (8, 8)),
        Experiment(Cuts, runners.run_cut, {"batch_size": 32}, (STEPS,), (8, 16), (8, 8)),
        Experiment(Bugs, runners.run_bugs, {"model": "resnet8"}, (INJECT, MYSTERY, ANSWER), (8, 16), (8, 8)),
        Experiment(Shatter, runners.run_shatter, {}, (NETWORKS,), unused=OF_NETWORK),
        Experiment(Identity, runners.run_identity, {"model": "preresnet56"}, quick_size=(4, 16)),
        Experiment(Degradation, runners.run_degradation, {"batch_size": 32}, (STEPS, LAYERS, TRAINED), (8, 16), (4, 8)),
        Experiment(Construct, runners.run_construct, {"model": "plain20"}, (STEPS, DEEPER, AUXILIARY), (8, 16), (4, 8)),
        Experiment(Deepen, runners.run_deepen, {"batch_size": 32}, (TRAINING_STEPS, AT), (8, 16), (4, 16)),
        Experiment(
            *(Lesion, runners.run_lesion, {"batch_size": 32}, (STEPS, PLAIN)),
            quick_size=(8, 16),
            unused_of_run=("batch_size",),
        ),
        Experiment(Shortcuts, runners.run_shortcuts, {"batch_size": 32}, (STEPS, TRAININGS, GATES), (8, 16), (4, 16)),
        Experiment(Spectrum, runners.run_spectrum, {"model": "preresnet20"}, (MODULES,), (8, 16), (16, 4)),
        Experiment(
            *(Responses, runners.run_responses, {"batch_size": 32}, (STEPS, PLAIN, DEEPER)),
            quick_size=(4, 16),
            unused_of_run=("batch_size", "seed"),
        ),
        Experiment(
            *(Landscape, runners.run_landscape, {"batch_size": 128}),
            (POINTS, IMAGES, SPAN, STATISTICS, PLAIN, STEPS_OR_NONE),
            *((8, 16), (8, 16)),
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
    unused |= {*OF_NETWORK, "seed"} if options.get("trained") is not None else set()
    used = {key: value for key, value in setting.to_dict().items() if key not in unused}
    if setting.run is not None:
        used |= of_run(setting.run)
    given = {key: value for key, value in options.items() if value is not None and value is not False and value != ""}
    own = {key: value for key, value in result.settings.items() if key != "model"}  # which is a class's name
    result.settings = {**result.settings, **used, **given, **own}  # what the experiment says of itself was so
    return result


def read(text: str) -> Result:
    """The result of a JSON text, of any experiment. Raises DataError for what is none."""
    found = parsed(text)
    name = found.get("experiment") if isinstance(found, dict) else None
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise DataError(f"this is no result of an experiment: {brief(name)}")
    return EXPERIMENTS[name].result.from_dict(found)
