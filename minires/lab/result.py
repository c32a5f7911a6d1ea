"""What an experiment returns: numbers and names, a verdict by a stated rule, a picture, and JSON there and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, brief

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN, NOT_SEEN, UNCLEAR = "seen", "not seen", "unclear"
Progress = Callable[[int, int, str], None]  # steps done, of how many, what is being done

MOST_BYTES = 64 << 20  # of a result's JSON


class Verdict(NamedTuple):
    """Whether the numbers show what the paper says: "seen", "not seen" or "unclear", and the numbers that say so."""

    word: str
    because: str


@dataclass(frozen=True)
class About:
    """What an experiment is about, for people.

    name: of the command ``minires lab NAME``; summary: one line; question: to answer before looking; claim: the paper's
    sentence, with figure or table; rule: how the verdict follows from the numbers; scale: how far this is from the paper's
    experiment; examples: (arguments, what they do) of command lines; disputed_by: where the literature disagrees, or "".
    """

    name: str
    summary: str
    question: str
    claim: str
    rule: str
    scale: str
    examples: tuple[tuple[str, str], ...]
    disputed_by: str = ""


@dataclass
class Result:
    """The base class of results. settings: what the experiment was given, such as the model's name and the seed."""

    about: ClassVar[About]
    settings: dict[str, Any]

    @property
    def verdict(self) -> Verdict:
        """By ``about.rule``."""
        raise NotImplementedError

    def draw(self, figure: Figure) -> None:
        """Draw the picture."""
        raise NotImplementedError

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """A table for a terminal: the columns' headings, and the rows."""
        raise NotImplementedError

    # --- pictures

    def plot(self, path: str | Path | None = None) -> Figure:
        """The picture, a Matplotlib Figure; with a path (.png, .svg or .pdf) it is saved there too."""
        from ..figures import new_figure, save_figure

        figure = new_figure(figsize=(7, 4.5), layout="constrained")
        self.draw(figure)
        if path is not None:
            save_figure(figure, path, dpi=150)
        return figure

    # --- JSON

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the experiment's name, the verdict, and every field. NaN and infinities become None."""
        verdict = self.verdict
        found = {"experiment": self.about.name, "verdict": verdict.word, "because": verdict.because}
        return found | {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def to_json(self) -> str:
        """A JSON text that ``from_json`` reads."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result of a text that ``to_json`` wrote. Raises DataError for any other."""
        return cls.from_dict(parsed(text))

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The result of what ``to_dict`` returned. Raises DataError for anything else."""
        if not isinstance(data, dict) or data.get("experiment") != cls.about.name:
            found = data.get("experiment") if isinstance(data, dict) else data
            raise DataError(f"this is no result of the experiment {cls.about.name!r} but of {brief(found)}")
        values = {}
        for field in fields(cls):
            if field.name not in data:
                raise DataError(f"a result of {cls.about.name!r} without {field.name!r}")
            try:
                values[field.name] = _restored(str(field.type), data[field.name])
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(
                    f"{field.name} of a result of {cls.about.name!r} cannot be {brief(data[field.name])}"
                ) from error
        return cls(**values)


def parsed(text: str) -> Any:
    """The data of a JSON text. Raises DataError for what is none, or too long."""
    if len(text) > MOST_BYTES:
        raise DataError(f"a result of {len(text):,} characters: none has more than {MOST_BYTES:,}")
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"this is no JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _restored(kind: str, value: Any) -> Any:
    """A field's value from JSON; kind: its annotation."""
    if kind.startswith("NDArray"):
        return np.array(_numbers(value), np.float64)
    if kind == "float":
        return math.nan if value is None else float(_checked(value, int | float))
    if kind == "int":
        return int(_checked(value, int))
    if kind == "str":
        return _checked(value, str)
    if kind.startswith("list[int]"):
        return [int(_checked(v, int)) for v in _checked(value, list)]
    if kind.startswith("list[float]"):
        return [math.nan if v is None else float(_checked(v, int | float)) for v in _checked(value, list)]
    if kind.startswith("list[str]"):
        return [_checked(v, str) for v in _checked(value, list)]
    if kind.startswith("dict[str, NDArray"):
        return {k: np.array(_numbers(v), np.float64) for k, v in _checked(value, dict).items()}
    return _checked(value, dict)


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{type(value).__name__}")
    return value


def _numbers(value: Any) -> Any:
    """Nested lists of numbers, with NaN for None."""
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return math.nan if value is None else float(_checked(value, int | float))


def norm(array: NDArray[Any] | None) -> float:
    """‖a‖₂ over all elements, computed in float64; 0 for None."""
    return 0.0 if array is None else float(np.sqrt(np.sum(np.square(array, dtype=np.float64))))


def inner(a: NDArray[Any] | None, b: NDArray[Any] | None) -> float:
    """⟨a, b⟩ over all elements, in float64; 0 for None."""
    return 0.0 if a is None or b is None else float(np.sum(np.multiply(a, b, dtype=np.float64)))
