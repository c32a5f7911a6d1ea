"""Does a deeper network, trained by the same recipe, end with a higher training error? (He et al. 2015, Fig. 6)

A deeper plain network could compute what a shallower one computes, if the layers that it has more were the identity; see
``construct.py``. If its training error is higher all the same, that is no overfitting: the optimizer does not find what is
there. Residual networks should not have this trouble.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data import Augmentation, Dataset
from ...errors import ConfigError, DataError, brief, plural
from ...models.blocks import BasicBlock, Bottleneck, PreActBlock
from ...models.resnet_cifar import DEPTHS, checked_width
from ...nn import Conv2d, Module
from ...recorded import RecordedStep
from ..fit import STEPS, STYLES, evaluated, fit
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict
from ..setting import family_and_depth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...training import Recipe

MORE, LESS = 0.02, 0.01  # of training errors: a difference, and none
LEARNT = 0.5  # a training error below which a network has learnt something
POINTS = 10  # of a curve
MOST_TEST_IMAGES = 512  # that are looked at after each tenth of a training
MOST_BYTES = 16 << 20  # of a metrics.jsonl
FAMILIES = {"plain": False, "resnet": True}  # the networks of He et al. 2015: whether they are residual


class Curve(NamedTuple):
    """Errors during a training. depth: layers; width: channels of the first stage; residual: whether it has shortcuts.

    at: epochs or steps, (points,); train_error, test_error: fractions of the images, (points,), NaN after a divergence.
    """

    depth: int
    width: int
    residual: bool
    at: NDArray[np.float64]
    train_error: NDArray[np.float64]
    test_error: NDArray[np.float64]


@dataclass
class Degradation(Result):
    """Training and test errors of plain and residual networks of several depths, trained by the same recipe.

    networks: names; depths: layers; widths: channels of the first stage; residual: 1 for networks with shortcuts, else 0; unit:
    of ``at``, "epoch" or "step"; at: (points,) by network; train_error: the mean over all images since the point before, in
    training mode, (points,) by network; test_error: at the point, in evaluation mode. Errors are fractions of the images.
    """

    networks: list[str]
    depths: list[int]
    widths: list[int]
    residual: list[int]
    unit: str
    at: dict[str, NDArray[np.float64]]
    train_error: dict[str, NDArray[np.float64]]
    test_error: dict[str, NDArray[np.float64]]

    about = About(
        name="degradation",
        summary="the training error of plain and residual networks of 20 and 56 layers, by the same recipe",
        question="A network of 56 layers and one of 20 are trained alike. Which has the higher training error at the end, if "
        "both are plain? And if both are residual?",
        claim="“The deep plain nets suffer from increased depth, and exhibit higher training error when going deeper”, and "
        "“our ResNets manage to overcome the optimization difficulty” (He et al. 2015, §4.2, Fig. 6; test errors in Table 6)",
        rule="the training error of the deepest network less that of the shallowest of the same kind and width, in the last "
        "epoch or tenth of the training: seen if it is more than 2 percentage points for every pair of plain networks and "
        "less than 1 for every pair of residual ones; not seen if it is less than 1 for a pair of plain networks, or more than "
        "2 for a pair of residual ones; otherwise unclear; unclear too without a pair of each kind, if a network of one has "
        "diverged, or if a shallow one's error is above 50 %",
        scale="He et al. trained for 164 epochs of CIFAR-10, up to 110 layers, residual ones up to 1,202; here each network is "
        "trained once, and differences of a point are within the noise of that. Without --trained networks of width 8 are "
        "trained on 16×16 pixels for 1,000 steps, about a minute; with --quick those of 20 and 32 layers learn 128 images "
        "by heart",
        examples=(
            ("--quick", "trains networks of width 4 for seconds"),
            ("--trained runs/lab --out degradation", "reads the runs of `minires lab train`, and keeps the result"),
            ("--depths 20,56,110 --steps 3000", "adds a depth, and trains for longer"),
        ),
    )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The shallowest and the deepest network of each kind and width, plain networks first."""
        found = []
        for kind in sorted(set(zip(self.residual, self.widths))):
            alike = [i for i in range(len(self.networks)) if (self.residual[i], self.widths[i]) == kind]
            alike.sort(key=lambda i: self.depths[i])
            if self.depths[alike[0]] < self.depths[alike[-1]]:
                found.append((self.networks[alike[0]], self.networks[alike[-1]]))
        return found

    def gap(self, shallow: str, deep: str) -> float:
        """The last training error of a network less that of a shallower one."""
        return float(self.train_error[deep][-1] - self.train_error[shallow][-1])

    @property
    def verdict(self) -> Verdict:
        gaps = {pair: self.gap(*pair) for pair in self.pairs}
        residual = dict(zip(self.networks, self.residual))
        sides = [[gap for (name, _), gap in gaps.items() if residual[name] == kind] for kind in (0, 1)]
        if not all(sides):
            return Verdict(UNCLEAR, "this takes plain and residual networks, each of two depths at the same width")
        because = ", ".join(
            f"{deep} {100 * self.train_error[deep][-1]:.1f} % and {shallow} {100 * self.train_error[shallow][-1]:.1f} % "
            f"({100 * gap:+.1f})"
            for (shallow, deep), gap in gaps.items()
        )
        learnt = all(self.train_error[shallow][-1] <= LEARNT for shallow, _ in gaps)
        if not learnt or not all(map(math.isfinite, gaps.values())):
            return Verdict(UNCLEAR, because)
        plain, shortcuts = sides
        if min(plain) < LESS or max(shortcuts) > MORE:
            return Verdict(NOT_SEEN, because)
        return Verdict(SEEN if min(plain) > MORE and max(shortcuts) < LESS else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        gaps = {deep: f"{100 * self.gap(shallow, deep):+.2f}" for shallow, deep in self.pairs}
        rows = [
            [
                *(name, str(depth), str(width), f"{self.train_error[name][-1]:.2%}"),
                *(f"{self.test_error[name][-1]:.2%}", gaps.get(name, "")),
            ]
            for name, depth, width in zip(self.networks, self.depths, self.widths)
        ]
        return ["network", "layers", "width", "train error", "test error", "points above the shallowest"], rows

    def draw(self, figure: Figure) -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, kind, title in zip(axes, (0, 1), ("plain", "residual")):
            chosen = [name for name, residual in zip(self.networks, self.residual) if residual == kind]
            for i, name in enumerate(chosen):
                look = {key: STYLES[i % len(STYLES)][key] for key in ("color", "marker")} | {"markersize": 3}
                axis.plot(self.at[name], 100 * self.train_error[name], linestyle="--", linewidth=0.9, **look)
                axis.plot(self.at[name], 100 * self.test_error[name], linewidth=1.6, label=name, **look)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel(self.unit)
            if chosen:
                axis.legend(fontsize=8)
        axes[0].set_ylabel("error (%)")
        figure.suptitle("Training error (dashed) and test error (solid)", fontsize=10)


def degradation(curves: Mapping[str, Curve], unit: str = "step") -> Degradation:
    """Compare the errors of networks by depth.

    curves: by the networks' names, such as ``training_curve`` and ``curves_in`` return them. unit: of ``Curve.at``. Raises
    ConfigError for no curves, or curves of different numbers of points, and DataError for errors that are no fractions.
    """
    lengths = {len(errors) for c in curves.values() for errors in (c.at, c.train_error, c.test_error)}
    if len(lengths) != 1 or lengths == {0}:
        raise ConfigError(
            f"degradation: the curves of networks that are compared have the same number of points, not {sorted(lengths)}"
        )
    for name, curve in curves.items():
        errors = np.concatenate([curve.train_error, curve.test_error])
        if ((errors < 0) | (errors > 1)).any():
            raise DataError(f"degradation: errors are fractions from 0 to 1, and {name} has {errors.max():.4g}")
    return Degradation(
        {},
        list(curves),
        [c.depth for c in curves.values()],
        [c.width for c in curves.values()],
        [int(c.residual) for c in curves.values()],
        unit,
        *({name: np.array(getattr(c, what)) for name, c in curves.items()} for what in Curve._fields[3:]),
    )


# --- curves


def training_curve(
    model: Module,
    train: Dataset,
    test: Dataset,
    steps: int = STEPS,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Train a copy of a CIFAR network by ``fit.fit``, and return its errors after each tenth of the steps.

    model: float32, of ``minires.models``; it is not changed. Test errors are those of up to 512 images. Raises ConfigError as
    ``fit.fit`` does, and for a network without blocks.
    """
    depth, width, residual = shape_of(model)
    trained = copy.deepcopy(model).train()
    step, few = RecordedStep(trained), test.take(np.arange(min(MOST_TEST_IMAGES, len(test))))
    wrong: list[float] = []  # of every step, the fraction of its images
    tested: list[float] = []
    ends = np.rint(np.linspace(0, steps, min(POINTS, steps) + 1)[1:]).astype(np.int64) if steps > 0 else np.zeros(0)

    def gradients(images: NDArray[Any], labels: NDArray[Any]) -> float:
        if len(wrong) == ends[len(tested)]:
            tested.append(1 - evaluated(trained, few)[1])
        loss, logits = step(images, labels)
        wrong.append(float((logits.argmax(1) != labels).mean()))
        return float(loss)

    losses = fit(trained, train, steps, batch_size, lr, seed, gradients, augment, progress)
    errors = np.full(steps, math.nan)
    errors[: len(wrong)] = wrong
    errors[np.isnan(losses)] = math.nan
    if not math.isnan(losses[-1]):
        tested.append(1 - evaluated(trained, few)[1])
    train_error = np.array([part.mean() for part in np.split(errors, ends[:-1])])
    test_error = np.full(len(ends), math.nan)
    test_error[: len(tested)] = tested
    return Curve(depth, width, residual, ends.astype(np.float64), train_error, test_error)


def shape_of(model: Module) -> tuple[int, int, bool]:
    """(layers, channels of the first convolution, whether there are shortcuts) of a network of ``minires.models``.

    Layers are counted as He et al. do: convolutions but for those of shortcuts, and the classifier. Raises ConfigError for a
    network without blocks.
    """
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock | Bottleneck | PreActBlock)]
    if not blocks:
        raise ConfigError(f"{type(model).__name__} has no blocks: this compares networks such as plain20 and resnet20")
    shortcuts = {id(m) for b in blocks if b.downsample is not None for m in b.downsample.modules()}
    layers = [m for m in model.modules() if isinstance(m, Conv2d) and id(m) not in shortcuts]
    return len(layers) + 1, layers[0].weight.shape[0], blocks[0].downsample is not None


def curves_in(folder: Path | str) -> dict[str, Curve]:
    """The curves of the runs in a folder that train plain and residual networks of He et al. 2015, by the runs' names.

    Other runs are left out, and so are those with an auxiliary classifier. Raises ConfigError for a folder without such runs, a
    run that is not finished and runs by different recipes, and DataError for a metrics.jsonl that no run writes.
    """
    path, found, recipes = Path(folder), {}, {}
    if not path.is_dir():
        raise ConfigError(f"there is no folder {path}: give the one that `minires lab train` has made")
    for run in sorted(path.iterdir()):
        recipe = _recipe_of(run)
        family, depth = ("", None) if recipe is None else family_and_depth(recipe.model)
        if recipe is None or family not in FAMILIES or depth not in DEPTHS:
            continue
        if recipe.model_options.get("aux_weight"):
            continue
        recipes[run.name] = _compared(recipe)
        epochs = recipe.epochs if recipe.steps is None else None
        train, test = _errors(run / "metrics.jsonl", epochs).T
        width = checked_width(recipe.model_options.get("width", 16))
        assert depth is not None
        found[run.name] = Curve(depth, width, FAMILIES[family], np.arange(1.0, len(train) + 1), train, test)
    if not found:
        raise ConfigError(
            f"{path} holds no runs of networks such as plain20 and resnet20: `minires lab train` makes some"
        )
    _need_one_recipe(recipes)
    return found


def _recipe_of(run: Path) -> Recipe | None:
    """The recipe of a run, None for what is no run that has begun."""
    from ...training import Recipe

    if not (run / "config.toml").is_file() or not (run / "metrics.jsonl").is_file():
        return None
    return Recipe.read(run / "config.toml")


def _compared(recipe: Recipe) -> dict[str, Any]:
    """The settings in which runs must agree: all but the model with its width, the seed, and where and how it is computed."""
    left_out = ("model", "seed", "data_dir", "threads", "fusion", "winograd")
    settings = {key: value for key, value in asdict(recipe).items() if key not in left_out}
    return settings | {"model_options": {k: v for k, v in recipe.model_options.items() if k != "width"}}


def _need_one_recipe(recipes: Mapping[str, dict[str, Any]]) -> None:
    (first, expected), *others = recipes.items()
    for name, settings in others:
        for key, value in settings.items():
            if value != expected[key]:
                raise ConfigError(
                    f"{first} and {name} cannot be compared, since they were trained by different recipes: {key} is "
                    f"{brief(expected[key])} and {brief(value)}"
                )


def _errors(path: Path, epochs: int | None) -> NDArray[np.float64]:
    """Training and test error of every epoch, (epochs, 2), from a metrics.jsonl.

    epochs: None of a run whose length is given in steps, which is complete when it has a summary.
    """
    from ...training import read_metrics

    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} has more than {MOST_BYTES:,} bytes: no run writes so many")
        rows = read_metrics(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if epochs is None:
        if not rows or not (path.parent / "summary.json").exists():
            raise ConfigError(f"{path.parent} is not finished: compare runs that are complete")
        epochs = len(rows)
    if len(rows) != epochs:
        raise ConfigError(
            f"{path.parent} has finished {len(rows)} of {plural(epochs, 'epoch')}: compare runs that are complete"
        )
    if any("test_acc" not in row for row in rows):
        raise ConfigError(f"{path.parent} has epochs without an evaluation: compare runs with eval_every = 1")
    found = np.empty((epochs, 2))
    for n, row in enumerate(rows):
        for k, key in enumerate(("train_acc", "test_acc")):
            value: Any = row.get(key)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if row.get("epoch") != n + 1 or not (number and 0 <= value <= 1):
                raise DataError(
                    f"{path}, line {n + 1}, is not the row of epoch {n + 1} with a {key} from 0 to 1, but has {brief(value)}"
                )
            found[n, k] = 1 - value
    return found
