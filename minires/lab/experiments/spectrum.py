"""The singular values of a block's and of a stage's Jacobian (Tarnowski et al. 2018, "Dynamical Isometry is Achieved in …").

J = ∂y/∂x, the module's output by its input, for one image in evaluation mode: every row is a backward pass that starts with 1
at one element of y. Images do not depend on each other then, so that a batch of copies gives many rows at once.

Of L wide blocks x + F(x) with random residual functions and small c_l = ‖J_F‖²/n the S-transforms multiply, and that of JJᵀ is
exp(−c (1 + 2y)) with c = Σ c_l, whatever the activation function is. So the mean of σ² is exp(c), its variance relative to the
square of the mean is 2c, and the largest and the smallest singular value follow from c too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError, nearest
from ...grad_mode import no_grad
from ...models import BasicBlock, Bottleneck
from ...models.blocks import PreActBlock
from ...nn import BatchNorm2d, Module, Sequential
from ...tensor import Tensor
from ..graph import Graph, record, untouched
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 4096  # inputs or outputs of a Jacobian: 128 MiB in float64, and minutes for its singular values
COPIES = 32  # of the image in a batch
LEAST = 1e-4  # the smallest singular value in the picture; below it they are drawn there
BLOCK, STAGE, MODULE = "block", "stage", "module"


@dataclass
class Spectrum(Result):
    """The singular values of Jacobians, for one image in evaluation mode.

    modules: names; kinds: "block", "stage" or "module"; outputs, inputs: the Jacobian's rows and columns; values: by module,
    all min(rows, columns) singular values, the largest first; residual: ‖J − 1‖²/n of square Jacobians, which is c_l of a block
    x + F(x); NaN of others.
    """

    modules: list[str]
    kinds: list[str]
    outputs: list[int]
    inputs: list[int]
    values: dict[str, NDArray[np.float64]]
    residual: NDArray[np.float64]

    about = About(
        name="spectrum",
        summary="the exact singular values of a block's and of a stage's Jacobian",
        question="The shortcut has the Jacobian 1. Are the singular values of x + F(x) near 1, and those of a whole stage?",
        claim="“dynamical isometry is achievable”, whatever the activation function, since “the resulting singular value "
        "spectrum depends on a single parameter” (Tarnowski et al. 2018, abstract); the smaller it is, the nearer to 1 are "
        "all of them",
        rule="for every stage that keeps the shape the parameter is c = ln of the mean of σ², and the variance of σ² relative "
        "to the square of its mean is compared with 2c: seen if they differ by a factor of 1.5 at most in all, not seen if by "
        "more than 3 in one or if c is negative, otherwise unclear",
        scale="the law is for many wide layers x + F(x) of small random F; here stages of a few blocks of two convolutions "
        "with few channels, since J has at most 4,096 × 4,096 elements. The default, a ResNet of width 8 on 16×16 pixels, "
        "takes some seconds; width 64 on 4×4 pixels is nearer to the law, and faster. Of a run of width 16 on 32×32 "
        "pixels only the last blocks are small enough, and take a minute each. The ReLU after the addition in networks of He "
        "et al. 2015 is outside the law",
        examples=(
            ("", "looks at a new pre-activation ResNet-20 of width 8, on 16×16 pixels"),
            ("--model resnet20", "looks at blocks with a ReLU after the addition"),
            ("--model plain20 --at layer1", "looks at a stage without shortcuts"),
            ("--run runs/preresnet20-cifar10-1 --at stages.2.blocks.1", "looks at one block of a trained network"),
        ),
    )

    def moments(self, module: str) -> tuple[float, float]:
        """(c, spread): ln of the mean of σ², and the variance of σ² relative to the square of that mean."""
        squares = self.values[module] ** 2
        mean = float(squares.mean())
        if not mean > 0:
            return -math.inf, math.nan
        return math.log(mean), float(squares.var()) / mean**2

    @property
    def verdict(self) -> Verdict:
        found = [
            (name, *self.moments(name))
            for name, kind, rows, columns in zip(self.modules, self.kinds, self.outputs, self.inputs)
            if kind == STAGE and rows == columns
        ]
        if not found:
            return Verdict(UNCLEAR, "no stage that keeps the shape")
        factors = [_factor(c, spread) for _, c, spread in found]
        worst = int(np.argmax(factors))
        name, c, spread = found[worst]
        word = SEEN if factors[worst] <= 1.5 else NOT_SEEN if factors[worst] > 3 else UNCLEAR
        return Verdict(word, f"relative variance of σ² {spread:.3g}, and 2c = {2 * c:.3g}, in {name}")

    def rows(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for i, name in enumerate(self.modules):
            values, (c, spread) = self.values[name], self.moments(name)
            within = float(((values >= 0.5) & (values <= 2)).mean())
            law = [f"{c:+.3f}", f"{spread:.3f}"] if self.outputs[i] == self.inputs[i] else ["", ""]
            size = f"{self.outputs[i]}×{self.inputs[i]}"
            extremes = [f"{values[0]:.3f}", f"{np.median(values):.3f}", f"{values[-1]:.4f}"]
            rows.append([name, size, *extremes, f"{within:.0%}", *law])
        return ["module", "J", "max σ", "median", "min σ", "½ to 2", "c", "var"], rows

    def draw(self, figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1)
        shown = [name for name, kind in zip(self.modules, self.kinds) if kind != BLOCK] or self.modules
        for name, (color, style) in zip(
            shown, (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#E69F00", ":"))
        ):
            values = np.maximum(self.values[name], LEAST)
            rank = (np.arange(len(values)) + 0.5) / len(values)
            top.plot(rank, values, color=color, linestyle=style, linewidth=1.2, label=name)
            c, _ = self.moments(name)
            if self._is_square(name) and 0 < c < math.inf:
                top.plot([1, 0], edges(c), color=color, marker="D", markersize=5, linestyle="", clip_on=False)
        top.axhline(1, color="black", linewidth=0.8)
        top.set(yscale="log", xlabel="rank / number of singular values (diamonds: the edges by the law)")
        top.set_ylabel("singular value σ")
        top.set_title(f"{self.settings.get('model', 'network')}: one image, evaluation mode", fontsize=10)
        top.legend(fontsize=7)
        n = np.arange(len(self.modules))
        for label, color, marker, of in (
            ("largest", "#D55E00", "^", lambda values: values[0]),
            ("median", "#0072B2", "o", np.median),
            ("smallest", "0.4", "v", lambda values: values[-1]),
        ):
            found = [max(float(of(self.values[name])), LEAST) for name in self.modules]
            bottom.plot(n, found, color=color, marker=marker, markersize=4, linestyle="", label=label)
        bottom.axhline(1, color="black", linewidth=0.8)
        bottom.set(yscale="log", ylabel="singular value σ")
        bottom.legend(fontsize=7)
        step = max(1, len(n) // 16)
        bottom.set_xticks(n[::step], [self.modules[i] for i in n[::step]], rotation=45, ha="right", fontsize=7)

    def _is_square(self, name: str) -> bool:
        i = self.modules.index(name)
        return self.outputs[i] == self.inputs[i]


def _factor(c: float, spread: float) -> float:
    """By what factor the relative variance of σ² and 2c differ; 1 where all σ are 1, infinite for a negative c."""
    if abs(c) < 1e-9 and spread < 1e-9:
        return 1.0
    if not (c > 0 and spread > 0):
        return math.inf
    return max(spread / (2 * c), 2 * c / spread)


def edges(c: float) -> tuple[float, float]:
    """The smallest and the largest singular value by the law, for c > 0.

    With S(y) = exp(−c (1 + 2y)), eigenvalues z of JJᵀ are 1/χ(y), χ(y) = y S(y)/(1 + y): z = (1 + y)/y · exp(c (1 + 2y)), and
    the edges are where dz/dy = 0, at y = (−1 ± √(1 + 2/c))/2.
    """
    root = math.sqrt(1 + 2 / c)
    smallest, largest = ((1 + y) / y * math.exp(c * (1 + 2 * y)) for y in ((-1 - root) / 2, (-1 + root) / 2))
    return math.sqrt(smallest), math.sqrt(largest)


def spectrum(
    model: Module,
    image: NDArray[Any],
    modules: Sequence[str] | None = None,
    statistics: NDArray[Any] | None = None,
    progress: Progress | None = None,
) -> Spectrum:
    """The singular values of the Jacobians of modules, ∂(output)/∂(input), for one image in evaluation mode.

    image: ndarray (C, H, W) of the weights' dtype. modules: names, by default all residual blocks and the stages that they are
    in, but for those whose Jacobian is too large if there are others. statistics: images (N, C, H, W) by which batch norm's
    running statistics are set for this time: those of a new network are 0 and 1, with which no network was ever trained. The
    model is not changed. Raises ConfigError for an image of another shape, for a module that is unknown or not a function of
    one tensor, for a Jacobian of more than 4,096 × 4,096 elements, and where images depend on each other; DataError for a
    Jacobian that is not finite.
    """
    if image.ndim != 3:
        raise ConfigError(f"spectrum looks at one image of shape (C, H, W), not at an array of shape {image.shape}")
    report = progress or (lambda done, total, what: None)
    found: dict[str, NDArray[np.float64]] = {}
    residual, shapes = [], []
    with evaluation(model, statistics):  # to the end: backward passes read the statistics
        graph, inputs = _recorded(model, image[None])
        kinds = _kinds(model, graph)
        chosen = _small(inputs, graph, kinds) if modules is None else list(modules)
        if not chosen:
            raise ConfigError(f"{type(model).__name__} has no residual block that is a module of its own: name modules")
        for name in chosen:
            _check(model, graph, inputs, name)
        graph, inputs = _recorded(model, np.repeat(image[None], COPIES, 0))
        for i, name in enumerate(chosen):
            report(i, len(chosen), name)
            matrix = jacobian(graph, inputs[name], graph.place(name))
            if not np.isfinite(matrix).all():
                raise DataError(f"the Jacobian of {name} is not finite: look at the weights and the image")
            rows, columns = matrix.shape
            shapes.append((rows, columns))
            residual.append(float(((matrix - np.eye(rows)) ** 2).sum()) / rows if rows == columns else math.nan)
            found[name] = np.asarray(np.linalg.svd(matrix, compute_uv=False), np.float64)
    return Spectrum(
        settings={"model": type(model).__name__},
        modules=chosen,
        kinds=[kinds.get(name, MODULE) for name in chosen],
        outputs=[rows for rows, _ in shapes],
        inputs=[columns for _, columns in shapes],
        values=found,
        residual=np.array(residual),
    )


def jacobian(graph: Graph, x: Tensor, y: Tensor) -> NDArray[np.float64]:
    """∂y/∂x of one image, (elements of y, elements of x), both in the order (C, H, W).

    graph: recorded of copies of one image, in evaluation mode; x and y: tensors of it, (copies, …). Raises ConfigError if the
    copies depend on each other.
    """
    copies, elements = len(y.data), y.data[0].size
    seed = np.zeros_like(y.data)
    seed[0] = 1
    others = _gradient(graph, x, y, seed)[1:]
    if np.any(others[np.isfinite(others)]):  # an infinite derivative makes 0·∞ of the others
        raise ConfigError(
            "the images of a batch depend on each other in evaluation mode too, as with batch norm without running statistics: "
            "there is no Jacobian of one image"
        )
    rows = np.zeros((elements, x.data[0].size))
    for start in range(0, elements, copies):
        n = min(copies, elements - start)
        seed = np.zeros_like(y.data)
        seed[(np.arange(n), *np.unravel_index(np.arange(start, start + n), y.shape[1:]))] = 1
        rows[start : start + n] = _gradient(graph, x, y, seed)[:n].reshape(n, -1)
    return rows


def _gradient(graph: Graph, x: Tensor, y: Tensor, seed: NDArray[Any]) -> NDArray[Any]:
    [channels] = graph.backward([x], start={y: [seed]})
    gradient = channels[0] if channels else None
    return np.zeros_like(x.data) if gradient is None else gradient


@contextmanager
def evaluation(model: Module, statistics: NDArray[Any] | None) -> Iterator[None]:
    """Inside, the model is in evaluation mode, with batch norm's running statistics those of the images, if there are any."""
    norms = [(module, module.momentum) for module in model.modules() if isinstance(module, BatchNorm2d)]
    with untouched(model):
        if statistics is not None:
            try:
                for module, _ in norms:
                    module.momentum = 1.0
                with no_grad():
                    model.train()(Tensor(statistics))
            finally:
                for module, momentum in norms:
                    module.momentum = momentum
        model.eval()
        yield


def _recorded(model: Module, images: NDArray[Any]) -> tuple[Graph, dict[str, Any]]:
    """The graph of a forward pass, and what every module was called with, by name."""
    inputs: dict[str, Any] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, given, path=path: inputs.update({path: given}))
        for path, module in model.named_modules()
    ]
    try:
        graph = record(model, images, loss=lambda y: y.sum())
    finally:
        for handle in handles:
            handle.remove()
    return graph, {path: given[0] for path, given in inputs.items() if len(given) == 1}


def _kinds(model: Module, graph: Graph) -> dict[str, str]:
    """What the residual blocks and the stages that they are in are, by name, a stage after its blocks."""
    modules, added = dict(model.named_modules()), {addition.name for addition in graph.additions}
    blocks = [
        name
        for name, module in modules.items()
        if name in graph.places and (name in added or isinstance(module, BasicBlock | Bottleneck | PreActBlock))
    ]
    found: dict[str, str] = {}
    parents = {name: name.rpartition(".")[0] for name in blocks}
    for i, name in enumerate(blocks):
        found[name] = BLOCK
        stage = parents[name]
        if stage and isinstance(modules[stage], Sequential) and stage not in [parents[b] for b in blocks[i + 1 :]]:
            found[stage] = STAGE
    return found


def _small(inputs: dict[str, Any], graph: Graph, names: Iterable[str]) -> list[str]:
    """The modules whose Jacobian is not too large; all of them where there is none, to say so of the first."""
    found = [name for name in names if isinstance(inputs.get(name), Tensor)]
    found = [name for name in found if max(x.data[0].size for x in (inputs[name], graph.place(name))) <= MOST]
    return found or list(names)


def _check(model: Module, graph: Graph, inputs: dict[str, Any], name: str) -> None:
    """ConfigError for a module whose Jacobian cannot be computed."""
    known = [path for path, _ in model.named_modules() if path]
    if name not in known:
        raise ConfigError(f"no module {name!r} in this network{nearest(name, known)}")
    x, y = inputs.get(name), graph.places.get(name)
    if not isinstance(x, Tensor) or y is None or id(x) not in graph.index:
        raise ConfigError(
            f"{name} has no Jacobian: it is not called with one tensor, or the output does not follow from it"
        )
    columns, rows = x.data[0].size, y.data[0].size
    if max(rows, columns) > MOST:
        raise ConfigError(
            f"the Jacobian of {name} has {rows:,} × {columns:,} elements, and {MOST:,} × {MOST:,} is the most: take a smaller "
            "width or image size (width 8 on 16×16 pixels has 2,048), or a module further down"
        )
