"""The comparison itself, for any function of leaf tensors.

With random cotangents v of the outputs y, L = Σ v·y is a scalar (a plain .sum() would not see batch norm and softmax, whose
outputs sum to a constant). Backward gives ∂L/∂x, and a central difference of L along one element, or along a random
direction of a large array, must agree with it. The tensors are changed in place and restored.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..lazy import fusion
from ..tensor import Tensor, backward
from . import kinks
from .results import KINK, RIGHT, WRONG, ZERO, Checked, Difference
from .state import Snapshot

Step = tuple[int, ...] | NDArray[np.float64]  # an element, or a direction of the shape of x

STEP_FACTORS = (1, 0.1, 0.01, 0.001)  # of the step that the sweep chose, tried in turn while a kink lies within it
DENSITIES = (1, 0.5, 0.25, 0.1, 0.03)  # of random directions, tried in turn while one meets kinks
TINY = 1e-4  # values below which the step may be too small beside the outputs
EPS = float(np.finfo(np.float64).eps)


def make_rng(seed: int) -> np.random.Generator:
    """The generator for cotangents and directions. Not default_rng(seed): a caller who draws x from that would get v = x,
    and the gradient of batch norm is 0 for a cotangent that equals its input."""
    return np.random.default_rng([seed, 0x67726164])


@dataclass(frozen=True)
class Settings:
    """eps: the step, or None to choose it by a sweep. stop: stop at the first wrong leaf. Others as in ``gradcheck``."""

    eps: float | None = None
    rtol: float = 1e-5
    atol: float = 1e-8
    most_elements: int = 400
    directions: int = 8
    sweep_points: int = 8
    stop: bool = False

    def __post_init__(self) -> None:
        for name, least in (("directions", 1), ("sweep_points", 3)):
            if not getattr(self, name) >= least:
                raise ConfigError(
                    f"gradcheck: {name} must be a whole number from {least} up, not {getattr(self, name)}"
                )


class Evaluation:
    """The values of the outputs at one point, and the branches that the operations took there."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self.values = [y.data.copy(order="K") for y in outputs]  # y may be x itself, which is about to change
        self.branches = kinks.branches(outputs)


class Objective:
    """L = Σ v·y as a function of leaf tensors. run() returns y: a Tensor, or a tuple or list of them."""

    def __init__(self, run: Callable[[], Any], state: Snapshot, rng: np.random.Generator) -> None:
        self.run, self.state = run, state
        self.base = self.evaluate()
        self.state = state.of_changed()
        self.cotangents = [rng.standard_normal(y.shape) for y in self.base.values]
        again = self.evaluate()
        self.deterministic = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(self.base.values, again.values))

    def outputs(self) -> list[Tensor]:
        """The Tensors that run() returns, every time with the same buffers and the same random numbers."""
        self.state.restore()
        y = self.run()
        return [t for t in (y if isinstance(y, (tuple, list)) else (y,)) if isinstance(t, Tensor)]

    def evaluate(self) -> Evaluation:
        """The Evaluation at the present values of the leaves, computed op by op so that every kink is seen."""
        with fusion(False), self.state.hooked():
            return Evaluation(self.outputs())

    def gradients(self, leaves: Sequence[Tensor]) -> list[NDArray | None] | str:
        """∂L/∂leaf of every leaf by backward, or a text that says why there are none."""
        for leaf in leaves:
            leaf.grad = None
        pairs = [(y, v) for y, v in zip(self.outputs(), self.cotangents) if y.requires_grad]
        if not pairs:
            return "no output depends on an input through minires operations"
        try:
            backward([y for y, _ in pairs], [v.copy() for _, v in pairs])  # a wrong one may write into what it gets
        except Exception as error:  # a wrong backward pass may well raise, which is a finding like any other
            return f"backward raised {type(error).__name__}: {error}"
        return [leaf.grad for leaf in leaves]

    def change(self, a: Evaluation, b: Evaluation) -> float:
        """L(b) − L(a). Outputs are subtracted first, so that those which did not change add no rounding error."""
        return sum(float((v * (y - x)).sum()) for v, x, y in zip(self.cotangents, a.values, b.values))

    def rounding(self, h: float) -> float:
        """A bound on the rounding error of a central difference with step h."""
        norm = np.sqrt(sum(float(np.square(v * y).sum()) for v, y in zip(self.cotangents, self.base.values)))
        return float(4 * EPS * norm / h)


class LeafCheck:
    """Checks the gradient of one leaf."""

    def __init__(
        self,
        objective: Objective,
        name: str,
        leaf: Tensor,
        grad: NDArray,
        settings: Settings,
        rng: np.random.Generator,
    ) -> None:
        self.objective, self.x, self.grad, self.settings, self.rng = objective, leaf.data, grad, settings, rng
        finite = np.abs(grad[np.isfinite(grad)])
        self.result = Checked(name, leaf.shape, scale=float(finite.max(initial=0.0)))
        self.allowed = settings.atol + settings.rtol * self.result.scale

    def run(self, find_element: bool) -> Checked:
        """Compare every element of a small array, or a few directions of a large one; then, if ``find_element``, search
        for a wrong element when a direction is wrong."""
        x, settings = self.x, self.settings
        if not x.size:
            return self.result
        self.result.h = float(settings.eps or self.sweep())
        if x.size <= settings.most_elements:
            self.result.differences = [self.compare(index) for index in np.ndindex(x.shape)]
            return self.result
        for d in range(settings.directions):
            for density in DENSITIES:
                difference = self.compare(self.direction(density), f"direction {d}")
                if difference.status != KINK:
                    break
            self.result.differences.append(difference)
            if find_element and self.result.wrong and self.result.located is None:
                self.result.located = self.find_wrong_element()
        return self.result

    def direction(self, density: float = 1) -> NDArray[np.float64]:
        """A random direction of length 1, in which a share ``density`` of the elements is not 0."""
        step = self.rng.standard_normal(self.x.shape)
        if density < 1:
            step[self.rng.random(step.shape) >= density] = 0
        if not step.any():
            step.flat[self.rng.integers(step.size)] = 1
        return step / np.linalg.norm(step)

    def analytic_slope(self, step: Step) -> float:
        """Backward's slope along an element or a direction."""
        return float(self.grad[step]) if isinstance(step, tuple) else float((self.grad * step).sum())

    def both_sides(self, step: Step, h: float) -> list[Evaluation]:
        """The Evaluations at x − h·step and x + h·step."""
        at = step if isinstance(step, tuple) else ...  # an element, or all of x
        start, sides = self.x[at].copy(order="K"), []
        try:
            for signed in (-h, h):
                self.x[at] = start + signed * (1 if isinstance(step, tuple) else step)
                with np.errstate(all="ignore"):  # the step may lead out of the function's domain
                    sides.append(self.objective.evaluate())
        finally:
            self.x[at] = start
        return sides

    def compare(self, step: Step, where: str | None = None) -> Difference:
        """The Difference along a step: h is reduced until no kink lies within it and the slopes agree."""
        analytic = self.analytic_slope(step)
        allowed = self.allowed * (1 if isinstance(step, tuple) else 3)  # a sum is as large as an element times √size
        where = where or f"element {list(map(int, step))}"
        index = step if isinstance(step, tuple) else None
        best, disagreed, previous = None, 0, math.nan
        for h in (self.result.h * factor for factor in STEP_FACTORS):
            below, above = self.both_sides(step, h)
            flips = kinks.flips(below.branches, above.branches)
            numeric = self.objective.change(below, above) / (2 * h)
            rounding = self.objective.rounding(h)
            right = abs(analytic - numeric) <= allowed + rounding
            # whether no step so far has told right from wrong
            open_yet = best is None or best.interval is not None or not np.isfinite(best.numeric)
            if flips:
                if open_yet:
                    best = self.at_kink(
                        Difference(where, index, analytic, numeric, allowed, h, KINK), below, above, flips
                    )
                continue
            zero = max(abs(analytic), abs(numeric)) <= self.settings.atol + 2 * rounding
            status = ZERO if right and zero else RIGHT if right else WRONG
            if right or open_yet:
                best = Difference(where, index, analytic, numeric, allowed + rounding, h, status)
            # not where the step leads out of the function's domain, nor where slopes still change by more than they disagree
            settled = np.isfinite(numeric) and not abs(numeric - previous) > abs(numeric - analytic) / 2
            disagreed, previous = disagreed + int(settled and not right), numeric
            if right or disagreed == 2:
                break
        assert best is not None  # the first h has set it
        return best

    def at_kink(
        self, difference: Difference, below: Evaluation, above: Evaluation, flips: dict[str, int]
    ) -> Difference:
        """The Difference across a kink, where any slope between those of the two sides is right.

        Where several kinks meet, the two slopes are no bounds: backward may have taken a different side of each
        (relu(x) − relu(−x) is x, and its gradient at 0 comes out as 0). Then anything finite is right.
        """
        d, base = difference, self.objective.base
        sides = self.objective.change(base, above) / d.h, self.objective.change(below, base) / d.h
        low, high = sorted(sides)
        slack = d.allowed + 2 * self.objective.rounding(d.h)
        # Max and Min keep a mask, in which one kink flips two elements: the old maximum and the new one
        single = sum(flips.values()) <= (2 if set(flips) in ({"max"}, {"min"}) else 1)
        outside = not low - slack <= d.analytic <= high + slack
        status = WRONG if not np.isfinite(d.analytic) or (single and outside) else KINK
        return Difference(d.where, d.index, d.analytic, d.numeric, d.allowed, d.h, status, (low, high), flips)

    def sweep(self) -> float:
        """Choose the step: of steps from 1e-2 to 1e-9 of the values' size along a random direction, the one whose
        neighbours agree with it best. Larger steps suffer from curvature, smaller ones from rounding. Backward's slope has
        no influence on the choice."""
        size = float(np.sqrt(np.mean(np.square(self.x)))) or 1.0
        step = self._sweep(size)
        numeric = max((abs(slope) for _, slope in self._slopes if np.isfinite(slope)), default=0.0)
        if size < TINY and numeric <= 2 * self.objective.rounding(step):  # rounding hides everything: look further
            step = self._sweep(1.0)
        return step

    def _sweep(self, size: float) -> float:
        steps = size * np.logspace(-2, -9, self.settings.sweep_points)
        direction = self.direction()
        analytic = self.analytic_slope(direction)
        slopes, flips = [], []
        for h in steps:
            below, above = self.both_sides(direction, h)
            slopes.append(self.objective.change(below, above) / (2 * h))
            flips.append(sum(kinks.flips(below.branches, above.branches).values()))
        self._slopes = list(zip(steps, slopes))
        self.result.sweep = [(float(h), s - analytic, n) for h, s, n in zip(steps, slopes, flips)]
        inner = range(1, len(steps) - 1)
        smooth = [k for k in inner if not flips[k]] or inner
        spread = [abs(slopes[k] - slopes[k - 1]) + abs(slopes[k] - slopes[k + 1]) for k in smooth]
        return float(steps[smooth[int(np.nanargmin(spread)) if np.isfinite(spread).any() else -1]])

    def find_wrong_element(self) -> Difference | None:
        """The Difference of a wrong element, or None: bisection, which keeps a half along which the slopes disagree."""
        indices = np.arange(self.x.size)
        while len(indices) > 1:
            for half in np.array_split(indices, 2):
                step = np.zeros(self.x.shape)
                step.flat[half] = self.rng.choice([-1.0, 1.0], len(half)) / np.sqrt(len(half))
                if self.compare(step, "some elements").status == WRONG:
                    indices = half
                    break
            else:
                return None
        found = self.compare(tuple(map(int, np.unravel_index(indices[0], self.x.shape))))
        return found if found.status == WRONG else None


def check_leaves(
    run: Callable[[], Any],
    leaves: dict[str, Tensor],
    state: Snapshot,
    settings: Settings,
    rng: np.random.Generator,
    on_leaf: Callable[[str], object] | None = None,
) -> tuple[list[Checked], str]:
    """Check the gradients of ``leaves`` ({name: leaf Tensor, float64}) in ``run()``. Returns ([Checked], error).

    on_leaf(name) is called before each leaf, for a progress display. error says why nothing could be compared, or is "".
    """
    if not leaves:
        return [], "there is nothing to check: no input holds floats, and no parameter requires a gradient"
    objective = Objective(run, state, rng)
    if not objective.deterministic:
        return [], (
            "the function gives other values for the same inputs, so that no difference means anything: "
            "fix what it draws (dropout is fixed for you; draw from mr.random.generator())"
        )
    if not all(np.isfinite(y).all() for y in objective.base.values):
        return [], "the outputs are not finite at these inputs, so that no difference means anything"
    grads = objective.gradients(list(leaves.values()))
    if isinstance(grads, str):
        return [], grads
    checked = []
    for (name, leaf), grad in zip(leaves.items(), grads):
        if on_leaf:
            on_leaf(name)
        grad = np.zeros_like(leaf.data) if grad is None else grad
        if grad.shape != leaf.shape:
            error = f"{name} has shape {leaf.shape}, its gradient {grad.shape}"
            checked.append(Checked(name, leaf.shape, error=error))
        else:
            first = all(c.status != WRONG for c in checked)  # one wrong element is enough to know
            checked.append(LeafCheck(objective, name, leaf, grad, settings, rng).run(find_element=first))
        if settings.stop and checked[-1].status == WRONG:
            break
    return checked, ""
