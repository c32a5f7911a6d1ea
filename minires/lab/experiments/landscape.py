"""The loss around a trained network, on a plane of random directions (Li et al. 2018, "Visualizing the Loss Landscape of …").

The directions are filter-normalised (``plane.py``), so that the surfaces of two networks can be compared. A picture of a plane
shows little of a space of a hundred thousand dimensions: where the plane has negative curvature the loss has too, but where it
has none the loss may have it in other directions (§6 there, "Are we really seeing convexity?"). Here the curvature of the plane
itself is computed at every point, from nine values of the loss, and a point counts as non-convex where the most negative
curvature is more than a tenth of the largest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError, DtypeError
from ...nn import Module
from ..fit import style
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict
from .plane import STATISTICS, STORED, Plane, Rows, digest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS, IMAGES, QUICK_POINTS, QUICK_IMAGES = 51, 1280, 11, 128
MOST_POINTS, MOST_IMAGES, MOST_SPAN = 201, 50_000, 100.0
MOST_HOURS = 24
NEAR = 0.5  # of the plane, around the network, for the verdict
NEGATIVE = 0.1  # of the largest curvature
CONSIDERABLE = 0.1  # of the points
ROWS = "landscape-rows.json"

Say = Callable[[str], None]  # shows a sentence


@dataclass
class Landscape(Result):
    """The loss on a plane around one network, or around a network and its plain twin, in this order.

    networks: names; classes: their number; steps: the coordinates of the grid along each direction, (points,), ascending, 0 in
    the middle; a filter's change of 1 is as large as the filter. loss: mean cross-entropy in nats, (networks, points, points),
    at [·, i, j] of θ + steps[j]·d₁ + steps[i]·d₂; NaN where it is not finite; error: the fraction of the images classified
    wrongly.
    """

    networks: list[str]
    classes: int
    steps: NDArray[np.float64]
    loss: NDArray[np.float64]
    error: NDArray[np.float64]

    about = About(
        name="landscape",
        summary="the loss around a trained network on a plane of filter-normalised random directions",
        question="A deep network is trained with shortcuts, and its twin without. Around which of them is the loss a smooth "
        "bowl, and around which does it have hills and valleys?",
        claim="“residual connections prevent the transition to chaotic behavior as depth increases” (Li et al. 2018, §5, "
        "Fig. 5; Fig. 1: a ResNet-56 without and with skip connections)",
        rule="the curvatures of the plane at a point are the eigenvalues of the 2×2 Hessian by finite differences; a point is "
        "non-convex if one of them is negative, and larger than a tenth of the largest in size. Of the points no farther than "
        "half of the span from the network: seen if the non-convex share is at least 0.1 larger around the plain network than "
        "around the residual one, and at least twice as large, not seen if it is 0.1 or more around the residual network and "
        "no larger around the plain one, otherwise unclear; unclear too without a plain network, if a network's loss is more "
        "than nine tenths of chance's, or if the loss is not finite at more than a tenth of the points",
        scale="Li et al. trained networks of 20, 56 and 110 layers for 300 epochs; without shortcuts those of 20 layers had a "
        "smooth surface too. The plane of 51×51 points is theirs; 1,280 images take about a quarter of an hour for a "
        "ResNet-20 on 32×32 pixels, and twice that with its twin. Without --run both are trained for 1,000 steps, at width 8 "
        "on 16×16 pixels, and all takes a few minutes; with --quick they learn 128 images by heart, and the plane has 11×11 "
        "points",
        examples=(
            ("--quick", "trains a narrow ResNet-20 and its plain twin for seconds"),
            (
                "--run runs/resnet56 --plain runs/plain56 --out landscape",
                "looks at trained networks; the same command goes on after Ctrl-C",
            ),
            ("--run runs/resnet20 --statistics batch --points 25", "normalises with the statistics of each batch"),
        ),
    )

    @property
    def curvatures(self) -> NDArray[np.float64]:
        """The smaller and the larger eigenvalue of the Hessian, (networks, points − 2, points − 2, 2), inside the edge."""
        h, f = float(self.steps[1] - self.steps[0]), self.loss
        middle = f[:, 1:-1, 1:-1]
        xx = (f[:, 1:-1, 2:] - 2 * middle + f[:, 1:-1, :-2]) / h**2
        yy = (f[:, 2:, 1:-1] - 2 * middle + f[:, :-2, 1:-1]) / h**2
        xy = (f[:, 2:, 2:] - f[:, 2:, :-2] - f[:, :-2, 2:] + f[:, :-2, :-2]) / (4 * h**2)
        mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        return np.stack([mean - half, mean + half], -1)

    @property
    def non_convex(self) -> NDArray[np.bool_]:
        """Where the plane has considerable negative curvature, (networks, points − 2, points − 2); not where it is rounding."""
        least, most = np.moveaxis(self.curvatures, -1, 0)
        h = float(self.steps[1] - self.steps[0])
        rounding = 16 * np.finfo(np.float32).eps * np.abs(self.loss[:, 1:-1, 1:-1]) / h**2
        return (least < -NEGATIVE * np.abs(most)) & (least < -rounding)

    def shares(self, radius: float) -> list[float]:
        """Of each network, the non-convex share of the points with a curvature at most ``radius`` away; NaN without any."""
        x = self.steps[1:-1]
        inside = (np.hypot(x, x[:, None]) <= radius) & np.isfinite(self.curvatures).all(-1)
        return [float(n[i].mean()) if i.any() else math.nan for n, i in zip(self.non_convex, inside)]

    @property
    def centre(self) -> NDArray[np.float64]:
        """The loss of each network itself, (networks,)."""
        i = len(self.steps) // 2
        return self.loss[:, i, i]

    @property
    def verdict(self) -> Verdict:
        chance = math.log(self.classes)
        for name, loss in zip(self.networks, self.centre):
            if not loss <= 0.9 * chance:
                return Verdict(UNCLEAR, f"{name} has learnt nothing: its loss is {loss:.3f}, by chance {chance:.3f}")
        shares = self.shares(NEAR * float(self.steps[-1]))
        because = "non-convex share " + ", ".join(f"{s:.3f} around {n}" for n, s in zip(self.networks, shares))
        if len(shares) < 2:
            return Verdict(UNCLEAR, f"{because}, and no plain network to compare with")
        missing = 1 - float(np.isfinite(self.loss).mean(axis=(1, 2)).min())
        if missing > 0.1 or not np.isfinite(shares).all():
            return Verdict(UNCLEAR, f"{because}; the loss is not finite at {missing:.0%} of the points of a network")
        residual, plain = shares
        if plain - residual >= CONSIDERABLE and plain >= 2 * residual:
            return Verdict(SEEN, because)
        return Verdict(NOT_SEEN if plain <= residual >= CONSIDERABLE else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        heads = ["network", "loss", "error", "least on the plane", "most", "non-convex, near", "on the plane"]
        span, i = float(self.steps[-1]), len(self.steps) // 2
        found = [
            [
                *(name, f"{loss[i, i]:.4f}", f"{error[i, i]:.1%}", f"{np.nanmin(loss):.4f}", f"{np.nanmax(loss):.4g}"),
                *(f"{near:.1%}", f"{everywhere:.1%}"),
            ]
            for name, loss, error, near, everywhere in zip(
                self.networks, self.loss, self.error, self.shares(NEAR * span), self.shares(2 * span)
            )
        ]
        return heads, found

    def draw(self, figure: Figure) -> None:
        grid, n = figure.add_gridspec(2, len(self.networks), height_ratios=(2.2, 1)), len(self.networks)
        for k in range(n):
            self._contours(figure.add_subplot(grid[0, k]), k)
        cut, i = figure.add_subplot(grid[1, :]), len(self.steps) // 2
        for k, name in enumerate(self.networks):
            for values, along, line in ((self.loss[k, i], "first", "-"), (self.loss[k, :, i], "second", ":")):
                look = style(k + 1) | {"linestyle": line, "marker": ".s"[k], "markersize": 2.5}
                cut.plot(self.steps, values, label=f"{name}, along the {along} direction", **look)
        if _explodes(self.loss):
            cut.set_yscale("log")
        cut.set_xlabel("step (norm of the filters)")
        cut.set_ylabel("loss (nats)")
        cut.legend(fontsize=6)

    def _contours(self, axes: Axes, k: int) -> None:
        """Contour lines of one network's loss, and in grey where the plane is not convex."""
        loss, x = self.loss[k], self.steps
        grey = np.where(self.non_convex[k], 1.0, math.nan)
        axes.pcolormesh(x[1:-1], x[1:-1], grey, cmap="Greys", vmin=0, vmax=4, shading="nearest", rasterized=True)
        low, high = float(np.nanmin(loss)), float(np.nanmax(loss))
        if high > low:
            levels = np.geomspace(max(low, 1e-6), high, 9) if _explodes(loss) else np.linspace(low, high, 9)
            lines = axes.contour(
                x, x, np.ma.masked_invalid(loss), levels=levels[1:-1], colors="#0072B2", linewidths=0.8
            )
            axes.clabel(lines, fontsize=6, fmt="%.3g")
        axes.plot(0, 0, "+", color="black", markersize=6)
        axes.set_aspect("equal")
        axes.set_xlabel("first direction (norm of the filters)", fontsize=8)
        axes.set_ylabel("second direction", fontsize=8)
        axes.set_title(
            f"{self.networks[k]}\nloss {self.centre[k]:.3f} at the network (+); grey: not convex", fontsize=8
        )


def _explodes(loss: NDArray[np.float64]) -> bool:
    """Whether the loss varies so much that it is drawn on a logarithmic scale."""
    return bool(np.nanmin(loss) > 0 and np.nanmax(loss) > 30 * np.nanmin(loss))


def landscape(
    model: Module,
    batch: tuple[NDArray[Any], NDArray[Any]],
    plain: Module | None = None,
    names: tuple[str, str] = ("residual", "plain"),
    points: int = POINTS,
    span: float = 1.0,
    statistics: str = STORED,
    batch_size: int = 128,
    seed: int = 0,
    folder: str | Path | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Landscape:
    """The loss of a network, and of its plain twin, on a plane of two random directions from −span to span each way.

    batch: images (N, C, H, W) of the weights' dtype, normalised and not augmented, and labels (N,) of integers; batch_size: how
    many are computed at a time. points: of the grid along each direction, an odd number. statistics: of batch norm, "stored" or
    "batch". folder: where rows of the grid are kept as they come, in ``landscape-rows.json``; if it is there, of the same
    networks, images and grid, the rows in it are not computed again, and the result has the same bits. say: is told the cost
    before it begins. The networks are not changed; their weights may be trained or not. Raises ConfigError for a grid that
    cannot be or would take more than a day, and for a file of other rows; DataError for a damaged one, and for networks whose
    own loss is not finite; DtypeError for images of another dtype than the weights.
    """
    images, labels = np.asarray(batch[0]), np.asarray(batch[1])
    check(points, span, statistics, batch_size, len(labels))
    if plain is not None and names[0] == names[1]:
        raise ConfigError(f"two networks are called {names[0]}: compare a network with another one")
    networks = {names[0]: model} if plain is None else {names[0]: model, names[1]: plain}
    for name, network in networks.items():
        dtype = next(network.parameters()).dtype
        if images.dtype != dtype:
            raise DtypeError(f"landscape: images are {images.dtype}, and the weights of {name} {dtype}")
    half = points // 2
    steps = [float(span) * (i - half) / half for i in range(points)]
    key: dict[str, Any] = {"points": points, "span": float(span), "seed": seed, "batch_size": batch_size}
    key |= {"statistics": statistics, "images": digest({"images": images, "labels": labels})}
    key |= {f"weights of {name}": digest(network.state_dict()) for name, network in networks.items()}
    kept = Rows(Path(folder) / ROWS if folder is not None else None, key, (len(networks) * points, points))
    planes = [Plane(network, (images, labels), batch_size, statistics, seed) for network in networks.values()]
    classes = _classes(planes[0], images)
    _say_cost(planes, list(networks), points, len(kept.rows), say or (lambda text: None))
    report = progress or (lambda done, total, what: None)
    total = len(planes) * points
    try:
        for n in range(len(kept.rows), total):
            k, i = divmod(n, points)
            row = []
            for j, x in enumerate(steps):
                report(n * points + j, total * points, f"points of the plane around {list(networks)[k]}")
                row.append(planes[k].at(x, steps[i]))
            kept.append(row)
    except KeyboardInterrupt:
        if kept.path is None:
            raise
        raise KeyboardInterrupt(
            f"interrupted: {len(kept.rows)} of {total} rows are kept in {kept.path}, and the same command goes on there"
        ) from None
    found = np.array(kept.rows, np.float64).reshape(len(planes), points, points, 2)
    loss = np.where(np.isfinite(found[..., 0]), found[..., 0], math.nan)
    settings = {"model": type(model).__name__, "seed": seed, "images": len(labels), "statistics": statistics}
    return Landscape(settings, list(networks), classes, np.array(steps), loss, found[..., 1])


def check(points: int, span: float, statistics: str, batch_size: int, images: int) -> None:
    """Raise ConfigError for what cannot be, before a network is trained or images are read."""
    if not (5 <= points <= MOST_POINTS and points % 2):
        raise ConfigError(
            f"points must be an odd number from 5 to {MOST_POINTS}, not {points}: the network is in the middle"
        )
    if not 0 < span <= MOST_SPAN:
        raise ConfigError(f"span is how far the plane goes, in norms of the filters, up to {MOST_SPAN:g}, not {span:g}")
    if statistics not in STATISTICS:
        raise ConfigError(f"statistics of batch norm are 'stored' or 'batch', not {statistics!r}")
    if not 1 <= batch_size <= MOST_IMAGES or not 1 <= images <= MOST_IMAGES:
        raise ConfigError(f"a landscape takes 1 to {MOST_IMAGES:,} images, not {images:,} in batches of {batch_size:,}")


def _classes(plane: Plane, images: NDArray[Any]) -> int:
    return int(plane.logits(images[: plane.batch_size]).shape[1])


def _say_cost(planes: list[Plane], names: list[str], points: int, done: int, say: Say) -> None:
    """Measure a point of each network, and say how long the rows to come will take. Raises ConfigError for more than a day."""
    if done == len(planes) * points:
        say("all rows are there already")
        return
    seconds, images = 0.0, len(planes[0].batch[1])
    for k, (plane, name) in enumerate(zip(planes, names)):
        if not math.isfinite(plane.at(0, 0).loss):  # which compiles and records too
            raise DataError(f"the loss of {name} is not finite: it has diverged, or its weights are damaged")
        start = time.perf_counter()
        plane.at(0, 0)
        rows = points - min(points, max(0, done - k * points))
        seconds += rows * points * (time.perf_counter() - start)
    what = f"{points}×{points} points of {images:,} images around {' and '.join(names)}"
    if seconds > 3600 * MOST_HOURS:
        raise ConfigError(
            f"{what} would take about {seconds / 3600:,.0f} hours here, and {MOST_HOURS} are the most: take fewer points or "
            "images"
        )
    kept = f"{done} of {len(planes) * points} rows are there already, the others of " if done else ""
    say(f"{kept}{what}: about {_duration(seconds)} on this machine")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
