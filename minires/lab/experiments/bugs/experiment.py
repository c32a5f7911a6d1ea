"""The experiment ``bugs``: a network is checked, compared and trained with each of several mistakes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import ConfigError, DataError
from ....grad_mode import enable_grad
from ....gradcheck import gradcheck_model
from ....nn import Module, classification_loss
from ....nn.losses import main_logits
from ....optim import SGD
from ....random import get_rng_state, set_rng_state
from ....tensor import Tensor
from ...graph import untouched
from ...result import Progress, inner, norm
from .backward import BACKWARD
from .injection import Mistake, injected
from .result import FOUND, PASSED, SECOND, WITHOUT_EFFECT, Bugs
from .zoo import MISTAKES, find

Batch = tuple[NDArray[Any], NDArray[Any]]  # images (N, C, H, W), labels (N,)

QUICK = (  # one of each kind
    *("fan-out-overwritten", "skip-dropped", "depth-from-global", "norm-variance-dropped", "relu-mask-of-gradient"),
    "x-added-to-x",
)
CHECKED = 4  # images in a gradient check: it runs the network hundreds of times
EPS = 1e-5  # step of the finite differences


class Training(NamedTuple):
    """How each network is trained: SGD with momentum 0.9, and a cosine schedule of the learning rate down to 0."""

    steps: int = 300
    batch_size: int = 32
    lr: float = 0.05
    seed: int = 0


def bugs(
    model: Module,
    batch: Batch,
    names: Sequence[str] | None = None,
    deeper: Module | None = None,
    training: Training | None = None,
    mystery: int | None = None,
    answer: str | None = None,
    progress: Progress | None = None,
) -> Bugs:
    """Check, compare and train a network with each of several mistakes, from the same weights with the same batches.

    batch: images (N, C, H, W) of floats and labels (N,) of integers, to train on; the first four are those of the gradient
    check. names: keys of ``lab.MISTAKES``, by default all. deeper: another depth of the network, for mistakes whose gradient is
    right at the first. mystery: a seed that chooses one of the mistakes in the backward pass that affect the network, which
    the result does not name; answer: a name, which the result grades. Networks are trained in float32 and checked in float64,
    fused; the model itself is not changed. Raises ConfigError for unknown names, for names beside a mystery and for an answer
    without one, and DataError for too few images.
    """
    training = training or Training()
    _check(batch, training, names, mystery, answer)
    with _kept_random():
        models = [copy.deepcopy(m).double().train() for m in (model, deeper) if m is not None]
        few = batch[0][:CHECKED].astype(np.float64, order="K"), np.asarray(batch[1][:CHECKED])
        chosen = [find(n) for n in names or MISTAKES] if mystery is None else [_chosen(models, few, mystery)]
        labels = [m.name for m in chosen] if mystery is None else [f"mystery {mystery}"]
        report = progress or (lambda done, total, what: None)
        report(0, len(chosen) + 1, "training the right network")
        right_loss, right_accuracy = _train(model, batch, training)
        found = []
        for i, mistake in enumerate(chosen):
            report(i + 1, len(chosen) + 1, labels[i])
            found.append((*_compare(models, few, mistake), *_train(model, batch, training, mistake)))
    forward, cosine, statuses, locations, losses, accuracies = zip(*found)
    return Bugs(
        settings={"model": type(model).__name__, "images": len(batch[0]), **training._asdict()},
        names=labels,
        kinds=["both passes" if m.both_passes else "backward" for m in chosen],
        fused=[m.fused if mystery is None else "?" for m in chosen],
        forward=np.array(forward),
        cosine=np.array(cosine),
        gradcheck=list(statuses),
        location=list(locations),
        second="" if deeper is None else type(deeper).__name__,
        loss=np.array(losses),
        accuracy=np.array(accuracies),
        right_loss=right_loss,
        right_accuracy=right_accuracy,
        chance=float(np.bincount(batch[1]).max() / len(batch[1])),
        answer=answer or "",
        grade="" if answer is None else grade(chosen[0], find(answer)),
    )


def _check(
    batch: Batch, training: Training, names: Sequence[str] | None, mystery: int | None, answer: str | None
) -> None:
    for name in [*(names or ()), *([] if answer is None else [answer])]:
        find(name)
    if names is not None and not names:
        raise ConfigError("bugs: names is empty: give the mistakes to inject, or None for all of them")
    if mystery is not None and names is not None:
        raise ConfigError("a mystery chooses the mistake itself: leave out its name (--inject)")
    if mystery is not None and mystery < 0:
        raise ConfigError(f"mystery is a seed, a whole number from 0, not {mystery}")
    if answer is not None and mystery is None:
        raise ConfigError("an answer is graded where a mistake is hidden: give the mystery's seed too (--mystery)")
    if training.steps < 1 or training.batch_size < 2:
        raise ConfigError(
            f"training takes one step at least, of two images at least, not {training.steps} of {training.batch_size}"
        )
    least = max(CHECKED, training.batch_size)
    if len(batch[0]) < least or len(batch[1]) != len(batch[0]):
        raise DataError(
            f"bugs: {len(batch[0])} images with {len(batch[1])} labels to train on; it takes as many labels as images, "
            f"{least} at least"
        )


@contextmanager
def _kept_random() -> Iterator[None]:
    """The library's random generator is afterwards as it was."""
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


# --- a mystery


def grade(hidden: Mistake, answer: Mistake) -> str:
    """What to say of an answer. A wrong one does not give the mistake away."""
    if answer is hidden:
        return f"your answer {answer.name!r} is right: {hidden.summary}. {hidden.lesson.rstrip('.')}"
    if answer.both_passes:
        return f"your answer {answer.name!r} is wrong: gradcheck could not find it, and a mystery can be found"
    if answer.where == hidden.where:
        return f"your answer {answer.name!r} is wrong, but the place ({answer.where}) is right"
    return f"your answer {answer.name!r} is wrong: look elsewhere than at: {answer.where}"


def _chosen(models: list[Module], batch: Batch, seed: int) -> Mistake:
    """A mistake in the backward pass that changes the gradient of one of the networks."""
    right = [_gradient(m, batch)[0] for m in models]
    for i in np.random.default_rng(seed).permutation(len(BACKWARD)):
        if any(_differs(_gradient(m, batch, BACKWARD[i])[0], g) for m, g in zip(models, right)):
            return BACKWARD[i]
    raise ConfigError("no mistake in the backward pass affects this network")


# --- comparison


def _compare(models: list[Module], batch: Batch, mistake: Mistake) -> tuple[float, float, str, str]:
    """(relative difference of the outputs, cosine of the gradients, status, location)."""
    status, location, seen = WITHOUT_EFFECT, "", []
    for model in models:
        right, wrong = _gradient(model, batch), _gradient(model, batch, mistake)
        outputs = max(norm(w - r) / max(norm(r), 1e-300) for w, r in zip(wrong[1:], right[1:]))
        cosine = inner(wrong[0], right[0]) / max(norm(wrong[0]) * norm(right[0]), 1e-300)
        seen.append((outputs, cosine))
        if not outputs and not _differs(wrong[0], right[0]):
            continue  # right in spite of the mistake: try the next depth
        with injected(mistake):
            result = gradcheck_model(
                model,
                batch[0],
                loss=lambda y: classification_loss(y, batch[1]),
                directions=1,
                eps=EPS,
                raise_exception=False,
            )
        status = PASSED if result.passed else FOUND if model is models[0] else SECOND
        location = result.location
        break
    return *seen[0], status, location


def _differs(wrong: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two gradients differ by more than rounding."""
    return not norm(wrong - right) <= 1e-9 * norm(right)


def _gradient(model: Module, batch: Batch, mistake: Mistake | None = None) -> tuple[NDArray[Any], Any, Any]:
    """(the gradient of all parameters in one vector, logits, loss)."""
    parameters = list(model.parameters())
    with untouched(model), enable_grad(), nullcontext() if mistake is None else injected(mistake):
        for p in parameters:
            p.grad = None
        output = model(Tensor(batch[0]))
        logits, loss = main_logits(output), classification_loss(output, batch[1])
        loss.backward()
    gradients = [np.zeros(p.size) if p.grad is None else p.grad.reshape(-1) for p in parameters]
    return np.concatenate(gradients), logits.data, loss.data


# --- training


def _train(
    model: Module, batch: Batch, training: Training, mistake: Mistake | None = None
) -> tuple[NDArray[np.float64], float]:
    """(the loss at each step, the accuracy in the last epoch) of a copy of the model, trained with a mistake or without."""
    network = copy.deepcopy(model).to(np.float32).train()
    images, labels = batch[0].astype(np.float32, order="K"), np.asarray(batch[1])
    optimizer = SGD(network.parameters(), lr=training.lr, momentum=0.9)
    losses, right = np.full(training.steps, np.nan), np.zeros(training.steps)
    rng, order = np.random.default_rng(training.seed), np.zeros(0, np.int64)
    with nullcontext() if mistake is None else injected(mistake), np.errstate(all="ignore"), enable_grad():
        for step in range(training.steps):
            if len(order) < training.batch_size:
                order = rng.permutation(len(images))
            chosen, order = order[: training.batch_size], order[training.batch_size :]
            optimizer.param_groups[0]["lr"] = training.lr * (1 + np.cos(np.pi * step / training.steps)) / 2
            output = network(Tensor(images[chosen]))
            logits, loss = main_logits(output), classification_loss(output, labels[chosen])
            if not np.isfinite(loss.data):
                return losses, 0.0
            losses[step], right[step] = loss.item(), (logits.data.argmax(1) == labels[chosen]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses, float(right[-max(1, len(images) // training.batch_size) :].mean())
