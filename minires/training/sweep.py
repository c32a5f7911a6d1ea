"""A sweep: the runs of a recipe with several settings and seeds, and what came of them."""

import math
import re
import statistics
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, brief, nearest
from .metrics import column, read_metrics
from .recipe import Recipe
from .run import RunFolder

MOST_RUNS = 1000
RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
NOT_SWEPT = ("seed", "threads", "data_dir", "cache")  # seeds are given apart; the others change no result


class Point(NamedTuple):
    """A run of a sweep. name: of its folder in the sweep's; settings: those of the sweep, without the seed."""

    name: str
    settings: dict[str, Any]
    recipe: Recipe


def points(
    recipe_with: Callable[..., Recipe], choices: Mapping[str, Sequence[Any]], seeds: Sequence[int]
) -> list[Point]:
    """The runs for all combinations of settings, and for every seed.

    recipe_with(**settings): the recipe with these settings, which may bring others along, as a model does in ``Recipe.named``.
    Raises ConfigError for a setting that is unknown or no result depends on, a value out of range, or that is there twice, no
    runs and too many.
    """
    known = [f.name for f in fields(Recipe) if f.name not in NOT_SWEPT]
    for name, values in choices.items():
        if name not in known:
            why = "seeds are given by --seeds" if name == "seed" else "no result depends on it"
            said = why if name in NOT_SWEPT else f"unknown setting{nearest(name, known)}"
            raise ConfigError(f"a sweep over {brief(name)}: {said}")
        if not values:
            raise ConfigError(f"a sweep over {name} needs values for it")
        folders = [_plain(value) for value in values]
        for folder in folders:
            if folders.count(folder) > 1:
                raise ConfigError(
                    f"a sweep over {name} has the folder {name}={folder} twice: give values that differ in it"
                )
    number = math.prod(map(len, choices.values())) * len(seeds)
    if not 1 <= number <= MOST_RUNS:
        raise ConfigError(f"a sweep has from 1 to {MOST_RUNS} runs, and these are {number}")
    found = []
    for values in product(*choices.values()):
        settings = dict(zip(choices, values))
        for seed in seeds:
            parts = [f"{name}={_plain(value)}" for name, value in settings.items()]
            found.append(Point("/".join([*parts, f"seed-{seed}"]), settings, recipe_with(**settings, seed=seed)))
    return found


def _plain(value: Any) -> str:
    """A value as a part of a file's name."""
    text = "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return "".join(c if c.isalnum() or c in ".-_" else "_" for c in text)


def parse_choices(texts: Iterable[str]) -> dict[str, list[Any]]:
    """ "lr=0.1,0.2" → {"lr": [0.1, 0.2]}. Values are read as TOML, others as texts. Raises ConfigError for no such text."""
    choices: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"--set takes NAME=VALUE,VALUE…, such as lr=0.1,0.2, not {text!r}")
        if name in choices:
            raise ConfigError(f"--set has {name} twice: give all of its values at once")
        choices[name] = [_value(part) for part in _split(values)]
    return choices


def _split(text: str) -> list[str]:
    """The parts between those commas that are in no list, table or quotes.

    >>> _split('[[24, 0.0], [32, 0.5]],[],"a,b"')
    ['[[24, 0.0], [32, 0.5]]', '[]', '"a,b"']
    """
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        else:
            depth += (c in "[{") - (c in "]}")
            if c == "," and depth <= 0:
                parts.append("")
                continue
        parts[-1] += c
    return parts


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text.strip()


def parse_seeds(text: str) -> list[int]:
    """ "0-2" → [0, 1, 2]; "0,3" → [0, 3]. Raises ConfigError for any other text, and for too many."""
    seeds: list[int] = []
    for part in text.split(","):
        found = RANGE.fullmatch(part.strip())
        if found is None:
            raise ConfigError(f"--seeds takes whole numbers such as 0,1,2 or 0-2, not {brief(text)}")
        first, last = int(found[1]), int(found[2] or found[1])
        seeds += range(first, min(last, first + MOST_RUNS) + 1)
    if not 1 <= len(seeds) <= MOST_RUNS or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds takes from 1 to {MOST_RUNS} different whole numbers, not {brief(text)}")
    return seeds


class Outcome(NamedTuple):
    """What came of the runs with the same settings. accuracies: by split ("test", "val", "test_flip" …), a list each."""

    settings: dict[str, Any]
    runs: int
    complete: int
    accuracies: dict[str, list[float]]
    seconds: list[float]


def outcomes(folder: Path, runs: Iterable[Point]) -> Iterator[Outcome]:
    """What came of the complete runs, in the order of the settings: accuracies after the last epoch."""
    groups: dict[str, list[Point]] = {}
    for point in runs:
        groups.setdefault(repr(point.settings), []).append(point)
    for own in groups.values():
        accuracies: dict[str, list[float]] = {}
        seconds, complete = [], 0
        for point in own:
            run = RunFolder(folder / point.name)
            if not run.summary.exists():
                continue
            complete += 1
            rows = read_metrics(run.metrics)
            seconds.append(sum(column(rows, "seconds")))
            for key in (key for key in (rows[-1] if rows else {}) if key.endswith("_acc") and key != "train_acc"):
                accuracies.setdefault(key.removesuffix("_acc"), []).append(column(rows, key)[-1])
        yield Outcome(own[0].settings, len(own), complete, accuracies, seconds)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation of a sample, which is NaN of one value alone.

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan
