"""Short trainings for the experiments: SGD by the whole gradient or by a part of it, and the evaluation of what came out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import models, nn
from ..anomaly import all_finite
from ..data import Augmentation, Dataset, Loader
from ..errors import ConfigError, DataError
from ..grad_mode import no_grad
from ..models.resnet_cifar import DEPTHS
from ..nn import Module
from ..optim import SGD, OneCycleLR, split_decay
from ..recorded import RecordedStep
from ..tensor import Tensor
from .graph import Rule, record, total
from .result import Progress
from .setting import Setting, family_and_depth

Gradients = Callable[[NDArray[Any], NDArray[Any]], float]  # images, labels → the loss; sets the weights' gradients
MOST_STEPS = 1_000_000

STEPS, QUICK_STEPS = 1000, 200
QUICK_IMAGES = 128  # a narrow ResNet-20 learns them by heart in that many steps, and would learn no more in seconds

QUICK_IMAGES_OF_RUN = 512


# --- the gradient


def whole_gradient(model: Module) -> Gradients:
    """Ordinary backpropagation of the mean cross-entropy."""
    step = RecordedStep(model)
    return lambda images, labels: float(step(images, labels)[0])


def gradient_by(model: Module, rule: Rule) -> Gradients:
    """The sum of a rule's channels. A weight that no channel reaches has no gradient: SGD leaves it as it is.

    The forward pass is the whole network's. It does not move the running statistics; see ``estimate_statistics``.
    """
    weights = list(model.parameters())

    def gradients(images: NDArray[Any], labels: NDArray[Any]) -> float:
        graph = record(model, images, labels, training=True)
        for weight, channels in zip(weights, graph.backward(weights, rule)):
            weight.grad = total(channels)
        return float(graph.output.data)

    return gradients


# --- training


def fit(
    model: Module,
    train: Dataset,
    steps: int = STEPS,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    gradients: Gradients | None = None,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Train a classifier in place, in training mode, and return the loss of every step, (steps,) float64.

    SGD with Nesterov momentum 0.9, weight decay 5e-4 on the weights that have more than one axis, and a one-cycle schedule
    with its peak at ``lr``. gradients: by default ``whole_gradient(model)``. Where loss or gradients are not finite the
    training ends before the update, and the losses of the remaining steps are NaN. Raises ConfigError for a number of steps or
    images that cannot be.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"steps must be a whole number from 1 to {MOST_STEPS:,}, not {steps}")
    if not 2 <= batch_size <= len(train):
        raise ConfigError(f"a batch has from 2 to {len(train)} images here, all that there are, not {batch_size}")
    loader = Loader(train, batch_size, augment=augment, seed=seed, drop_last=True)
    optimizer = SGD(split_decay(model, 5e-4), lr, momentum=0.9, nesterov=True)
    schedule, losses = OneCycleLR(optimizer, lr, steps), np.full(steps, math.nan)
    gradients = gradients or whole_gradient(model.train())
    model.train()
    step = 0
    while step < steps:
        for images, labels in loader:
            if progress is not None:
                progress(step, steps, "training")
            optimizer.zero_grad()
            loss = _loss_of(gradients, images, labels, first=step == 0)
            found = [p.grad_to_read for p in model.parameters()]
            if not math.isfinite(loss) or not all(all_finite(g) for g in found if g is not None):
                return losses
            optimizer.step()
            schedule.step()
            losses[step] = loss
            step += 1
            if step == steps:
                break
    model.zero_grad()
    return losses


def _loss_of(gradients: Gradients, images: NDArray[Any], labels: NDArray[Any], first: bool) -> float:
    """The loss, NaN for a network that has diverged in training, which ``record`` refuses."""
    try:
        with np.errstate(all="ignore"):
            return gradients(images, labels)
    except DataError:
        if first:  # the weights or the images that were given are wrong
            raise
        return math.nan


def estimate_statistics(model: Module, dataset: Dataset, batch_size: int = 256) -> None:
    """Set the running statistics of all batch norms to their means over the batches of a data set; the mode is kept.

    A last batch of a single image is left out: it has no variance.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta, modes = [m.momentum for m in norms], [(m, m.training) for m in model.modules()]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    try:
        model.train()
        with no_grad():
            for images, _ in Loader(dataset, min(batch_size, len(dataset)), shuffle=False):
                if len(images) > 1:
                    model(Tensor(images))
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training


def evaluated(model: Module, dataset: Dataset, batch_size: int = 256) -> tuple[float, float]:
    """(mean loss, accuracy) over a data set in evaluation mode."""
    from ..training import evaluate

    mean = evaluate(model, Loader(dataset, batch_size, shuffle=False))
    return mean.loss, mean.accuracy


def trained_copy(
    model: Module, train: Dataset, rule: Rule | None, **options: Any
) -> tuple[Module, NDArray[np.float64]]:
    """A copy of the model that is trained by the gradient of a rule (None: the whole), and its losses.

    options: those of ``fit``. Its batch norms have statistics that are estimated after the training, by the same procedure for
    every rule. The model itself stays as it is.
    """
    trained = copy.deepcopy(model)
    losses = fit(trained, train, gradients=None if rule is None else gradient_by(trained, rule), **options)
    estimate_statistics(trained, train)
    return trained, losses


def trained_copies(
    model: Module,
    train: Dataset,
    test: Dataset,
    rules: Mapping[str, Rule | None],
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, NDArray[np.float64]]:
    """A ``trained_copy`` for every rule, by name, and what became of them, one row each in the order of the rules.

    losses: (rules, steps); train_loss, test_loss and accuracy, on the test set: (rules,). options: those of ``fit``.
    """
    rows = []
    for i, (name, rule) in enumerate(rules.items()):
        trained, losses = trained_copy(model, train, rule, progress=within(progress, i, len(rules), name), **options)
        rows.append((losses, evaluated(trained, train)[0], *evaluated(trained, test)))
    return dict(zip(("losses", "train_loss", "test_loss", "accuracy"), map(np.array, zip(*rows))))


# --- for the command line


def images_for(setting: Setting) -> tuple[Dataset, Dataset]:
    """(training set, test set) of a setting; for a quick experiment the first training images, as both.

    Of a trained run, which need not learn a few images by heart, the first images of each.
    """
    train, test = setting.datasets()
    if not setting.quick:
        return train, test
    if setting.run is not None:
        first, first_test = (np.arange(min(QUICK_IMAGES_OF_RUN, len(d))) for d in (train, test))
        return train.take(first), test.take(first_test)
    few = train.take(np.arange(min(QUICK_IMAGES, len(train))))
    return few, few


def network_of(setting: Setting, train: Dataset, steps: int | None = None, progress: Progress | None = None) -> Module:
    """The network of the setting's run, or one that is trained now; float32, in evaluation mode."""
    model = setting.network(np.float32)
    if setting.run is None:
        steps, augment = steps_of(setting, steps), augmentation(setting)
        fit(model, train, steps, setting.batch_size, seed=setting.seed, augment=augment, progress=progress)
        estimate_statistics(model, train)
    return model.eval()


def steps_of(setting: Setting, steps: int | None) -> int:
    """The steps of a training: those that are given, or the usual number."""
    return steps if steps is not None else QUICK_STEPS if setting.quick else STEPS


def augmentation(setting: Setting) -> Augmentation | None:
    """Flips, which suit any size of images; for a quick experiment none."""
    return None if setting.quick else Augmentation(pad=0)


def twin(name: str) -> str:
    """The name of the plain network of the same depth. Raises ConfigError for a network that has none."""
    found = name.replace("resnet", "plain")
    if found == name or found not in models.MODELS:
        raise ConfigError(f"{name} has no plain twin: choose a residual network such as resnet20 or preresnet20")
    return found


def deeper(name: str, quick: bool = False) -> str:
    """The name of a deeper network of the same kind: of resnet20 resnet56, quicker resnet32. Raises ConfigError without one."""
    family, depth = family_and_depth(name)
    found = [f"{family}{d}" for d in DEPTHS if depth in DEPTHS and depth < d <= 110]
    if not found:
        raise ConfigError(f"{name} has no deeper network to compare with: choose one such as resnet20")
    return found[0 if quick else min(2, len(found) - 1)]


def within(progress: Progress | None, part: int, parts: int, what: str) -> Progress:
    """The progress of one part of an experiment whose parts take about as long as each other."""
    if progress is None:
        return lambda done, total, _: None
    return lambda done, total, _: progress(part * total + done, parts * total, what)


# Okabe and Ito's colours, with line styles and markers that tell them apart in grey
STYLES: Sequence[dict[str, Any]] = (
    {"color": "black", "linestyle": "-", "marker": "o"},
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#D55E00", "linestyle": "-.", "marker": "^"},
    {"color": "#009E73", "linestyle": ":", "marker": "D"},
    {"color": "#E69F00", "linestyle": (0, (5, 1)), "marker": "v"},
    {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
    {"color": "#56B4E9", "linestyle": (0, (1, 1)), "marker": "X"},
)


def style(i: int) -> dict[str, Any]:
    """How the i-th line of a picture is drawn."""
    return {"markersize": 3, "linewidth": 1.2, **STYLES[i % len(STYLES)]}


def smoothed(losses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(steps, means of the losses around them), some thirty points of a curve."""
    width = max(1, len(losses) // 30)
    whole = len(losses) // width * width  # without an incomplete last interval
    means = np.array([losses[i : i + width].mean() for i in range(0, whole, width)])
    return np.array([i + width / 2 for i in range(0, whole, width)]), means
