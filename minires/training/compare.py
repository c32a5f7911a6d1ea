"""Several runs side by side: their curves in one picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, plural
from ..figures import new_figure
from .metrics import column, known, read_metrics
from .recipe import Recipe
from .run import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_RUNS = 100
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")  # Okabe & Ito 2008
LINES = ("-", "--", ":", "-.")

NOT_COMPARED = ("data_dir", "threads", "epochs", "weights_sha256")

Rows = Sequence[dict[str, Any]]


def runs_in(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """The runs of these folders, and those inside the ones that are no runs themselves; by the shortest names that differ.

    Raises ConfigError for a folder without runs that have finished an epoch, and for too many.
    """
    found: dict[Path, RunFolder] = {}
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"there is no folder {path}: give the folders of runs, or a folder that holds some")
        own = [path] if (path / "config.toml").is_file() else sorted(p.parent for p in path.rglob("config.toml"))
        own = [run for run in own if (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").stat().st_size]
        if not own:
            raise ConfigError(f"{path} holds no run that has finished an epoch")
        found |= {run.resolve(): RunFolder(run) for run in own}
    if len(found) > MOST_RUNS:
        raise ConfigError(f"{plural(len(found), 'run')} are more than can be told apart: compare at most {MOST_RUNS}")
    return dict(zip(_names(list(found)), found.values()))


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as few as make them differ."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def table(runs: Mapping[str, RunFolder]) -> tuple[list[str], list[list[str]]]:
    """(heads, rows): a row for each run, with its settings that differ between them, in the order of test accuracy."""
    recipes = {name: Recipe.read(run.config) for name, run in runs.items()}
    varied = [
        key
        for key in _settings(next(iter(recipes.values())))
        if len({repr(_settings(r)[key]) for r in recipes.values()}) > 1
    ]
    histories = {name: read_metrics(run.metrics) for name, run in runs.items()}
    last = {s: {name: _last(rows, f"{s}_acc") for name, rows in histories.items()} for s in ("train", "val", "test")}
    splits = [s for s, values in last.items() if not all(map(math.isnan, values.values()))]
    rows = []
    for name in sorted(runs, key=lambda name: -last["test"][name] if last["test"][name] >= 0 else math.inf):
        settings, minutes = _settings(recipes[name]), sum(column(histories[name], "seconds")) / 60
        accuracies = ["–" if math.isnan(last[s][name]) else f"{last[s][name]:.2%}" for s in splits]
        epochs = str(len(histories[name]))
        rows.append([name, *(_shown(settings[key]) for key in varied), epochs, *accuracies, f"{minutes:.1f}"])
    return ["run", *varied, "epochs", *(f"{s} acc" for s in splits), "minutes"], rows


def _shown(value: Any) -> str:
    """A setting as text, lists without brackets and numbers with few digits."""
    if isinstance(value, tuple | list):
        return ", ".join(map(_shown, value)) or "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)


def _last(rows: Rows, key: str) -> float:
    """The last value that is known, or NaN."""
    return (known(rows, key)[1] or [math.nan])[-1]


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in vars(recipe).items() if key not in NOT_COMPARED}


def draw(runs: Mapping[str, RunFolder]) -> "Figure":
    """The training losses and test accuracies of runs by epoch, in one picture."""
    figure = new_figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, run) in enumerate(runs.items()):
        rows = read_metrics(run.metrics)
        look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % len(LINES)]}
        epochs = range(1, len(rows) + 1)
        marker = "o" if len(rows) <= 30 else ""
        left.plot(epochs, column(rows, "train_loss"), marker=marker, markersize=3, **look)
        evaluated, accuracies = known(rows, "test_acc")
        label = f"{name}: {100 * _last(rows, 'test_acc'):.2f} %"
        right.plot(evaluated, [100 * a for a in accuracies], marker=marker, markersize=3, label=label, **look)
    for axes, what in ((left, "training loss (nats)"), (right, "test accuracy (%)")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.grid(color="0.9")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
