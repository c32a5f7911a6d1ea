"""How long experiments take: measured on this machine once they have run on it, before that estimated.

The times of the last run with default settings are kept in ``lab-times.json`` in the cache folder. What has not run here yet is
estimated from the times of one machine, those of ``MEASURED``, times the median ratio of the two where others have run here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ..data.cifar.files import default_folder
from ..files import atomic_write

MACHINE = "2 cores of an Intel Emerald Rapids"
MEASURED: dict[str, tuple[float, float | None]] = {  # name → seconds on MACHINE with --quick, and without
    "paths": (2.8, 5.91),
    "split": (0.35, 0.35),
    "refine": (0.74, 0.77),
    "flow": (4.91, 132),
    "truncate": (3.99, 136),
    "cut": (3.03, 53.2),
    "bugs": (6.29, 201),
    "shatter": (0.45, 30.7),
    "identity": (1.93, 20.9),
    "degradation": (5.91, 70.4),
    "construct": (4.62, 147),
    "deepen": (4.15, 68.8),
    "lesion": (5.71, 292),
    "shortcuts": (6.05, 149),
    "spectrum": (0.58, 8.34),
    "responses": (5.08, 182),
    "landscape": (6.15, None),
}
LARGEST = 1 << 16  # bytes; the file has about 2,000


class Time(NamedTuple):
    """seconds: None where nothing is known; measured: whether they are of this machine."""

    seconds: float | None
    measured: bool


def file() -> Path:
    """Where the times are kept."""
    return default_folder().parent / "lab-times.json"


def remember(name: str, quick: bool, seconds: float) -> None:
    """Keep how long an experiment took. Where that cannot be written, nothing happens."""
    times = _read()
    times[_key(name, quick)] = round(seconds, 2)
    with suppress(OSError):
        file().parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file(), "w") as out:
            json.dump(times, out, indent=1, sort_keys=True)


def expected(names: Iterable[str]) -> dict[str, tuple[Time, Time]]:
    """For each experiment the time with --quick, and without."""
    here = _read()
    there = {
        _key(name, quick): seconds
        for name, both in MEASURED.items()
        for seconds, quick in zip(both, (True, False))
        if seconds is not None
    }
    ratios = [here[key] / there[key] for key in here if key in there]
    ratio = median(ratios) if ratios else 1.0

    def time(key: str) -> Time:
        if key in here:
            return Time(here[key], True)
        return Time(there[key] * ratio if key in there else None, False)

    return {name: (time(_key(name, True)), time(_key(name, False))) for name in names}


def _key(name: str, quick: bool) -> str:
    return f"{name} --quick" if quick else name


def _read() -> dict[str, float]:
    """The times that are kept; without those that cannot be any, and empty where there is no such file or it is damaged."""
    try:
        if file().stat().st_size > LARGEST:
            return {}
        found = json.loads(file().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: s for key, s in found.items() if isinstance(s, int | float) and math.isfinite(s) and 0 < s < 1e7}
