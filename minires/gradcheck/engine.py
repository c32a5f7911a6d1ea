"""The comparison itself, for any function of leaf tensors.

L = Σ v·y for random cotangents v of the outputs y (a plain .sum() would be blind for batch norm and softmax, whose outputs
sum to a constant). Backward gives ∂L/∂x; a central difference of L along an element, or along a random direction of a
large array, must agree. The tensors are moved in place and put back.
"""

from dataclasses import dataclass

import numpy as np

from ..lazy import fusion
from ..tensor import Tensor, backward
from . import kinks
from .results import KINK, RIGHT, WRONG, ZERO, Checked, Difference

SMALLER = (1, 0.1, 0.01, 0.001)  # of the step that the sweep chose: tried in turn while a corner lies within it
SPARSER = (1, 0.5, 0.25, 0.1, 0.03)  # shares of the elements along which directions are drawn while corners are met
EPS = np.finfo(np.float64).eps


def generator(seed):
    """For cotangents and directions. Not default_rng(seed): who draws x from that would get v = x, and batch norm's
    gradient for a cotangent that is its own input is 0."""
    return np.random.default_rng([seed, 0x67726164])


@dataclass(frozen=True)
class Settings:
    """eps: the step, or None to choose it by a sweep. stop: at the first leaf that is wrong. Others as in ``gradcheck``."""

    eps: float | None = None
    rtol: float = 1e-5
    atol: float = 1e-8
    most_elements: int = 400
    directions: int = 8
    sweep_points: int = 8
    stop: bool = False


class Sample:
    """The outputs at one point, and the branches that were taken there."""

    def __init__(self, outputs):
        self.values = [y.data.copy(order="K") for y in outputs]  # y may be x itself, which is about to move
        self.branches = kinks.branches(outputs)


class Probe:
    """A function of leaf tensors, to be evaluated at will. run() → a Tensor, or a tuple or list of them."""

    def __init__(self, run, state, rng):
        self.run, self.state = run, state
        self.base = self.sample()
        self.state.keep_moved()
        self.cotangents = [rng.standard_normal(y.shape) for y in self.base.values]
        again = self.sample()
        self.repeats = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(self.base.values, again.values))

    def outputs(self):
        self.state.restore()
        y = self.run()
        return [t for t in (y if isinstance(y, (tuple, list)) else (y,)) if isinstance(t, Tensor)]

    def sample(self):
        """At the point where the leaves are now; operation by operation, so that every corner is seen."""
        with fusion(False), self.state.watched():
            return Sample(self.outputs())

    def gradients(self, leaves):
        """Backward's gradients, or a text that says why there are none."""
        for leaf in leaves:
            leaf.grad = None
        pairs = [(y, v) for y, v in zip(self.outputs(), self.cotangents) if y.requires_grad]
        if not pairs:
            return "no output depends on an input through minires operations"
        try:
            backward([y for y, _ in pairs], [v for _, v in pairs])
        except Exception as error:  # a wrong backward pass may well raise: that is a finding, not an accident
            return f"backward raised {type(error).__name__}: {error}"
        return [leaf.grad for leaf in leaves]

    def change(self, a, b):
        """L(b) − L(a). Outputs are subtracted first: what did not change leaves no rounding error."""
        return sum(float((v * (y - x)).sum()) for v, x, y in zip(self.cotangents, a.values, b.values))

    def rounding(self, h):
        """How far rounding may carry a central difference of step h."""
        norm = np.sqrt(sum(float(np.square(v * y).sum()) for v, y in zip(self.cotangents, self.base.values)))
        return float(4 * EPS * norm / h)


class LeafCheck:
    """Checks the gradient of one leaf."""

    def __init__(self, probe, name, leaf, grad, settings, rng):
        self.probe, self.x, self.grad, self.settings, self.rng = probe, leaf.data, grad, settings, rng
        finite = np.abs(grad[np.isfinite(grad)])
        self.result = Checked(name, leaf.shape, scale=float(finite.max(initial=0.0)))
        self.allowed = settings.atol + settings.rtol * self.result.scale

    def run(self, find_element):
        """Compare every element of a small array, a few directions of a large one; there ``find_element`` of a wrong one."""
        x, settings = self.x, self.settings
        if not x.size:
            return self.result
        self.result.h = float(settings.eps or self.sweep())
        if x.size <= settings.most_elements:
            self.result.differences = [self.compare(index) for index in np.ndindex(x.shape)]
            return self.result
        for d in range(settings.directions):
            for share in SPARSER:
                difference = self.compare(self.direction(share), f"direction {d}")
                if difference.status != KINK:
                    break
            self.result.differences.append(difference)
            if find_element and self.result.wrong and self.result.located is None:
                self.result.located = self.wrong_element()
        return self.result

    def direction(self, share=1):
        """A random direction of length 1, along a share of the elements."""
        step = self.rng.standard_normal(self.x.shape)
        if share < 1:
            step[self.rng.random(step.shape) >= share] = 0
        return step / (np.linalg.norm(step) or 1)

    def slope_along(self, step):
        """Backward's slope along an element (an index) or a direction (an array)."""
        return float(self.grad[step]) if isinstance(step, tuple) else float((self.grad * step).sum())

    def both_sides(self, step, h):
        """The samples at x − h·step and x + h·step."""
        at = step if isinstance(step, tuple) else ...  # an element, or all of x
        start, samples = self.x[at].copy(order="K"), []
        try:
            for signed in (-h, h):
                self.x[at] = start + signed * (1 if isinstance(step, tuple) else step)
                samples.append(self.probe.sample())
        finally:
            self.x[at] = start
        return samples

    def compare(self, step, where=None):
        """Central differences of smaller and smaller step, until one has no corner within it and agrees."""
        analytic = self.slope_along(step)
        allowed = self.allowed * (1 if isinstance(step, tuple) else 3)  # a sum is as large as an element times √size
        where = where or f"element {list(map(int, step))}"
        index = step if isinstance(step, tuple) else None
        best, disagreed = None, 0
        for h in (self.result.h * shorter for shorter in SMALLER):
            below, above = self.both_sides(step, h)
            flips = kinks.flips(below.branches, above.branches)
            numeric = self.probe.change(below, above) / (2 * h)
            rounding = self.probe.rounding(h)
            right = abs(analytic - numeric) <= allowed + rounding
            if flips:
                if best is None or best.status == KINK:
                    best = self.at_a_corner(
                        Difference(where, index, analytic, numeric, allowed, h, KINK), below, above, flips
                    )
                continue
            nothing = max(abs(analytic), abs(numeric)) <= self.settings.atol + 2 * rounding
            status = ZERO if right and nothing else RIGHT if right else WRONG
            if right or best is None or best.status == KINK:
                best = Difference(where, index, analytic, numeric, allowed + rounding, h, status)
            disagreed += not right
            if right or disagreed == 2:
                break
        return best

    def at_a_corner(self, difference, below, above, flips):
        """Between the slopes of its two sides anything is right. Where several corners meet, that bounds nothing:
        backward may have taken another side of each (relu(x) − relu(−x) is x, and at 0 its gradient comes out as 0)."""
        d, base = difference, self.probe.base
        sides = self.probe.change(base, above) / d.h, self.probe.change(below, base) / d.h
        low, high = sorted(sides)
        slack = d.allowed + 2 * self.probe.rounding(d.h)
        # Max keeps a mask: the element that loses and the one that wins are two of its elements, and one corner
        single = sum(flips.values()) <= (2 if set(flips) == {"max"} else 1)
        outside = not low - slack <= d.analytic <= high + slack
        status = WRONG if not np.isfinite(d.analytic) or (single and outside) else KINK
        return Difference(d.where, d.index, d.analytic, d.numeric, d.allowed, d.h, status, (low, high), flips)

    def sweep(self):
        """Try steps from 1e-2 to 1e-9 of the values' size along a random direction, and choose the one whose neighbours
        agree with it best: larger steps suffer from curvature, smaller ones from rounding. Backward has no say in it."""
        size = float(np.sqrt(np.mean(np.square(self.x)))) or 1.0
        steps = size * np.logspace(-2, -9, self.settings.sweep_points)
        direction = self.direction()
        analytic = self.slope_along(direction)
        slopes, flips = [], []
        for h in steps:
            below, above = self.both_sides(direction, h)
            slopes.append(self.probe.change(below, above) / (2 * h))
            flips.append(sum(kinks.flips(below.branches, above.branches).values()))
        self.result.sweep = [(float(h), s - analytic, n) for h, s, n in zip(steps, slopes, flips)]
        inner = range(1, len(steps) - 1)
        smooth = [k for k in inner if not flips[k]] or inner
        spread = [abs(slopes[k] - slopes[k - 1]) + abs(slopes[k] - slopes[k + 1]) for k in smooth]
        return float(steps[smooth[int(np.nanargmin(spread)) if np.isfinite(spread).any() else 0]])

    def wrong_element(self):
        """Halve the elements, and the halves, keeping one along which the slopes disagree, down to a single element."""
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


def check_leaves(run, leaves, state, settings, rng, on_leaf=None):
    """Check the gradients of ``leaves`` ({name: leaf Tensor, float64}) in ``run()``. Returns ([Checked], error).

    on_leaf(name) is called before each: for a display of progress.
    """
    if not leaves:
        return [], "there is nothing to check: no input holds floats, and no parameter requires a gradient"
    probe = Probe(run, state, rng)
    if not probe.repeats:
        return [], (
            "the function gives other values for the same inputs, so that no difference means anything: "
            "fix what it draws (dropout is fixed for you; draw from mr.random.generator())"
        )
    if not all(np.isfinite(y).all() for y in probe.base.values):
        return [], "the outputs are not finite at these inputs, so that no difference means anything"
    grads = probe.gradients(list(leaves.values()))
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
            checked.append(LeafCheck(probe, name, leaf, grad, settings, rng).run(find_element=first))
        if settings.stop and checked[-1].status == WRONG:
            break
    return checked, ""
