"""A deep plain network that is built from a trained shallower one, with layers that are the identity (He et al. 2015, §1).

"There exists a solution by construction to the deeper model: the added layers are identity mapping, and the other layers are
copied from the learned shallower model." Here it is built, compared, and trained on. A deep network that was trained as usual
has the same capacity: if its loss is higher, the optimizer has not found what is there.

A layer is convolution, batch norm and ReLU. With filters of a single 1 (Dirac filters) the convolution hands on its input x.
Batch norm does so in evaluation mode for γ = √(σ² + ε), β = μ, whatever running mean μ and variance σ² it has; ReLU does, since
x is the output of a ReLU. In training mode batch norm takes the batch's mean and variance, so that μ and σ² must be near those
of its input. With γ = 1, β = 0, μ = 0, σ² = 1 − ε a layer would be the identity in evaluation mode too, but the first training
batch would be normalised, and the identity lost.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import functional as F
from ...data import Augmentation, Dataset, Loader
from ...errors import ConfigError
from ...grad_mode import no_grad
from ...models import CifarResNet
from ...models.blocks import BasicBlock
from ...nn import BatchNorm2d, Conv2d, Module
from ...nn.losses import main_logits
from ...tensor import Tensor
from ..fit import STEPS, estimate_statistics, evaluated, fit, smoothed, style, within
from ..graph import untouched
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict
from ..setting import normalised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("layer1", "layer2", "layer3")
EXACT = 1e-4  # of the largest logit: rounding errors of float32 in 56 layers are a hundredth of it
BETTER = 0.95
# More leads away from the solution: of a plain20 on CIFAR-10, the training loss goes from 0.43 to 1.5 in 40 steps with 0.01, to
# 0.7 with 0.003, to 0.55 with 0.001.
RATE = 0.001
MOST_IMAGES = 2048  # on which losses and statistics are measured


@dataclass
class Construct(Result):
    """Four networks: the shallow one, what is constructed from it, a deep one, and one with an auxiliary classifier, or three.

    networks: names; trained: steps before those here, the constructed network's being the shallow one's; difference: the
    largest of logits between the shallow and the constructed network, in evaluation mode, divided by the largest logit; before,
    after: mean loss of training images before and after the steps, in evaluation mode, (networks,); error: after, the fraction
    of these images; losses: of every step, in training mode, (networks, steps), NaN after a divergence; first: of the first
    batch in training mode, before the first step, (networks,); naive: the same of the constructed network with γ = 1 and β = 0
    in the layers that were added. Losses are cross-entropies of the networks' own classifiers, in nats.
    """

    networks: list[str]
    trained: list[int]
    difference: float
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    error: NDArray[np.float64]
    losses: NDArray[np.float64]
    first: NDArray[np.float64]
    naive: float

    about = About(
        name="construct",
        summary="a deep plain network built from a trained shallow one and identity layers, against one that was trained",
        question="Thirty-six layers that are the identity are put into a trained plain network of 20 layers. All 56 are "
        "trained on. Is the result better than a network of 56 layers that was trained as long from random weights?",
        claim="“There exists a solution by construction to the deeper model … But experiments show that our current solvers on "
        "hand are unable to find solutions that are comparably good or better than the constructed solution” (He et al. 2015, "
        "§1); a classifier half-way, of weight 0.3, is of Szegedy et al. 2015, §5",
        rule="seen if the logits of the constructed network differ from the shallow one's by at most 1e-4 of the largest, and "
        "after the steps here its training loss is below 0.95 of that of the deep network that was not constructed; not seen "
        "if they differ more, or its loss is the higher; otherwise unclear; unclear too if the deep network was trained for "
        "fewer steps than the shallow one before",
        scale="He et al. trained plain networks for 164 epochs, and constructed none. Without --run networks of width 8 are "
        "trained on 16×16 pixels for 1,000 steps, and for 1,000 more with a learning rate of 0.001 after the construction, "
        "some minutes; with --quick they learn 128 images by heart. With --run and without --deeper the deep network has "
        "the steps here alone, and the verdict is unclear",
        examples=(
            ("--quick", "trains and constructs networks of width 4"),
            ("--run runs/lab/plain20 --deeper runs/lab/plain56 --steps 400", "takes trained networks, and trains on"),
        ),
    )

    @property
    def verdict(self) -> Verdict:
        built, deep = self.after[1:3]
        because = (
            f"logits differ by {self.difference:.1e} of the largest; training loss {built:.4f} after {self.losses.shape[1]} "
            f"steps, {deep:.4f} of the deep network that was not constructed"
        )
        if not self.difference <= EXACT:
            return Verdict(NOT_SEEN, because)
        if self.trained[2] < self.trained[0]:
            return Verdict(UNCLEAR, f"{because}, which had {self.trained[2]} steps before, not {self.trained[0]}")
        if built > deep:
            return Verdict(NOT_SEEN, because)
        return Verdict(SEEN if built < BETTER * deep else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        heads = ["network", "steps before", "train loss before", "first batch", "train loss after", "train error after"]
        rows = [
            [
                *(name, str(self.trained[i]), f"{self.before[i]:.4f}", f"{self.first[i]:.4f}"),
                *(f"{self.after[i]:.4f}", f"{self.error[i]:.2%}"),
            ]
            for i, name in enumerate(self.networks)
        ]
        rows.insert(2, ["constructed, γ = 1, β = 0", "", "", f"{self.naive:.4f}", "", ""])
        return heads, rows

    def draw(self, figure: Figure) -> None:
        axis = figure.subplots()
        for i, name in enumerate(self.networks):
            axis.plot(*smoothed(self.losses[i]), label=name, **style(i))
        axis.set_xlabel("step after the construction")
        axis.set_ylabel("training loss (nats)")
        axis.legend(fontsize=8)
        figure.suptitle(f"{self.settings.get('model', 'A network')} made deeper by identity layers", fontsize=10)


def construct(
    shallow: Module,
    deep: Module,
    train: Dataset,
    auxiliary: Module | None = None,
    trained: Sequence[int] = (0, 0, 0),
    steps: int = STEPS,
    batch_size: int = 32,
    lr: float = RATE,
    seed: int = 0,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> Construct:
    """Build a network of the architecture of ``deep`` from ``shallow``, and train all of them on.

    shallow: a trained plain CifarResNet with batch norm, float32; deep: a deeper one of the same width, which was trained as
    long by itself; auxiliary: one like it with an auxiliary classifier, or None. Copies are trained. trained: the steps of
    training that shallow, deep and auxiliary have had. steps, batch_size, lr, seed, augment: of the training from here, see
    ``fit.fit``. Raises ConfigError for networks that are not plain or do not go together, and as ``fit.fit`` does.
    """
    some = train.take(np.arange(min(MOST_IMAGES, len(train))))
    built = with_identity_layers(shallow, deep, some)
    names, models, before = ["shallow", "constructed", "deep"], [shallow, built, deep], [trained[0], *trained[:2]]
    if auxiliary is not None:
        names, models, before = [*names, "deep, auxiliary"], [*models, auxiliary], [*before, trained[2]]
    loader = Loader(train, min(batch_size, len(train)), augment=augment, seed=seed, drop_last=True)
    batch = next(iter(loader))  # which ``fit`` will take first, too
    result = Construct(
        settings={"steps": steps, "lr": lr, "seed": seed},
        networks=names,
        trained=before,
        difference=_difference(shallow, built, some),
        before=np.zeros(len(names)),
        after=np.zeros(len(names)),
        error=np.zeros(len(names)),
        losses=np.zeros((len(names), max(steps, 0))),
        first=np.array([_first_loss(model, batch) for model in models]),
        naive=_first_loss(_naive(built, shallow), batch),
    )
    for i, (name, model) in enumerate(zip(names, models)):
        one = copy.deepcopy(model)
        if i > 1:  # a new network's running statistics are those of no images
            estimate_statistics(one, some)
        result.before[i] = evaluated(one, some)[0]
        part = within(progress, i, len(names), f"training the {name} network")
        result.losses[i] = fit(one, train, steps, batch_size, lr, seed, augment=augment, progress=part)
        estimate_statistics(one, some)
        result.after[i], accuracy = evaluated(one, some)
        result.error[i] = 1 - accuracy
    return result


def with_identity_layers(shallow: Module, deep: Module, train: Dataset) -> CifarResNet:
    """A network of the architecture of ``deep`` that computes what ``shallow`` does, by identity layers at each stage's end.

    In evaluation mode that is exact but for rounding; in training mode nearly so for batches like those of ``train``, from
    which the layers' statistics are taken. Neither network is changed. Raises ConfigError as ``construct`` does.
    """
    blocks = check_depths(shallow, deep)
    assert isinstance(deep, CifarResNet)
    built = copy.deepcopy(deep)
    state, own = shallow.state_dict(), built.state_dict()
    built.load_state_dict({name: state.get(name, array) for name, array in own.items()})
    statistics = _stage_statistics(shallow, train)
    for stage in STAGES:
        for block in list(getattr(built, stage))[blocks:]:
            for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
                set_identity(conv, norm, *statistics[stage])
    return built


def set_identity(conv: Conv2d, norm: BatchNorm2d, mean: NDArray[Any], var: NDArray[Any]) -> None:
    """Make a 3×3 convolution and its batch norm the identity, for inputs with these means and variances, (channels,)."""
    assert norm.weight is not None
    assert norm.bias is not None
    weight, channels = np.zeros_like(conv.weight.data), np.arange(len(conv.weight.data))
    weight[channels, channels, 1, 1] = 1
    conv.weight.data = weight
    norm.running_mean[...], norm.running_var[...] = mean, var
    norm.weight.data = np.sqrt(norm.running_var + norm.running_var.dtype.type(norm.eps))
    norm.bias.data = norm.running_mean.copy()


def check_depths(shallow: Module, deep: Module) -> int:
    """The number of blocks in a stage of ``shallow``. Raises ConfigError for networks that do not go together."""
    plain, deeper = _plain(shallow), _plain(deep)
    few, many = len(list(plain.layer1)), len(list(deeper.layer1))
    if few >= many:
        raise ConfigError(f"construct: the deep network has {many} blocks in a stage, and the shallow one {few}")
    state, other = plain.state_dict(), deeper.state_dict()
    if type(plain.avgpool) is not type(deeper.avgpool) or any(
        name not in other or other[name].shape != array.shape
        for name, array in state.items()
        if not name.startswith("aux.")
    ):
        raise ConfigError(
            "construct: the deep network is not of the shallow one's width, image channels, classes and pooling"
        )
    return few


def _plain(model: Module) -> CifarResNet:
    """The model, which is a plain network with batch norm. Raises ConfigError for any other."""
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock)]
    if isinstance(model, CifarResNet) and all(b.downsample is None and isinstance(b.bn1, BatchNorm2d) for b in blocks):
        return model
    raise ConfigError(
        f"construct takes plain networks with batch norm, such as plain20, and this {type(model).__name__} is none"
    )


def _stage_statistics(shallow: Module, train: Dataset) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """(mean, unbiased variance) of each stage's output by channel, in training mode, averaged over batches."""
    model = copy.deepcopy(_plain(shallow)).train()
    found: dict[str, list[Any]] = {stage: [] for stage in STAGES}

    def note(stage: str, y: Tensor) -> None:
        values = np.moveaxis(y.data, 1, 0).reshape(y.shape[1], -1).astype(np.float64)
        found[stage].append((values.mean(1), values.var(1, ddof=1)))

    for stage in STAGES:
        getattr(model, stage).register_forward_hook(lambda module, inputs, y, stage=stage: note(stage, y))
    with no_grad():
        for images, _ in Loader(train, min(256, len(train)), shuffle=False):
            if len(images) > 1:
                model(Tensor(images.astype(model.conv1.weight.dtype, copy=False)))
    means = {stage: np.mean(moments, axis=0) for stage, moments in found.items()}
    return {stage: (mean, var) for stage, (mean, var) in means.items()}


def _naive(built: CifarResNet, shallow: Module) -> CifarResNet:
    """The constructed network with γ = 1 and β = 0 in the layers that were added: the identity in evaluation mode alone."""
    naive = copy.deepcopy(built)
    for stage in STAGES:
        for block in list(getattr(naive, stage))[len(list(getattr(shallow, stage))) :]:
            for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
                set_identity(conv, norm, np.zeros(norm.num_features), np.full(norm.num_features, 1 - norm.eps))
    return naive


def _difference(shallow: Module, built: Module, images: Dataset) -> float:
    """The largest difference of the two networks' logits in evaluation mode, divided by the largest logit."""
    dtype = next(iter(shallow.parameters())).dtype
    x, _ = normalised(images, np.arange(min(256, len(images))), dtype)
    found = []
    for model in (shallow, built):
        with untouched(model), no_grad():
            found.append(model.eval()(Tensor(x)).data.astype(np.float64))
    return float(np.abs(found[1] - found[0]).max() / max(np.abs(found[0]).max(), 1e-300))


def _first_loss(model: Module, batch: tuple[NDArray[Any], NDArray[Any]]) -> float:
    """The mean cross-entropy of a batch in training mode; the model stays as it is."""
    with untouched(model), no_grad():
        return F.cross_entropy(main_logits(model.train()(Tensor(batch[0]))), batch[1]).item()
