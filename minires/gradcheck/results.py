"""The results of a check, as plain data: for assertions in tests, for programs (``to_dict``) and for people (``print``)."""

import math
from dataclasses import dataclass, field
from typing import Any, Self

from ..errors import MiniresError

RIGHT, WRONG, KINK, ZERO, VACUOUS = "right", "wrong", "kink", "zero", "vacuous"


class GradcheckError(MiniresError, AssertionError):
    """An analytic gradient that disagrees with finite differences. ``result``: everything that was compared."""

    def __init__(self, message: str, result: "GradcheckResult | None" = None) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class Difference:
    """One number of backward's gradient compared with the central difference of step h.

    status: "right"; "wrong"; "kink", when a kink lies between x − h and x + h: ``interval`` has the slopes on its two sides,
    and ``flips`` the operations that have it; "zero", when both numbers are 0. index: the element, or None for a direction.
    """

    where: str
    index: tuple[int, ...] | None
    analytic: float
    numeric: float
    allowed: float
    h: float
    status: str
    interval: tuple[float, float] | None = None
    flips: dict[str, int] = field(default_factory=dict)

    @property
    def error(self) -> float:
        return abs(self.analytic - self.numeric)

    @property
    def relative_error(self) -> float:
        return self.error / max(abs(self.analytic), abs(self.numeric), 1e-300)

    def __str__(self) -> str:
        text = f"analytic {self.analytic:.9g}, numeric {self.numeric:.9g}, relative error {self.relative_error:.2e}"
        if self.interval:
            low, high = self.interval
            return f"{text}, slopes on the two sides {low:.9g} and {high:.9g} ({kinks_in_words(self.flips)})"
        return text


def kinks_in_words(flips: dict[str, int]) -> str:
    """The operations with a kink, such as "a corner of relu ×2"."""
    return "a corner of " + ", ".join(f"{name}" + (f" ×{n}" if n > 1 else "") for name, n in flips.items())


@dataclass
class Checked:
    """One input or parameter: the numbers that were compared, and the sweep that chose h: [(h, numeric − analytic, flips)]."""

    name: str
    shape: tuple[int, ...]
    differences: list[Difference] = field(default_factory=list)
    h: float = math.nan
    scale: float = 0.0  # the largest of its gradients
    sweep: list[tuple[float, float, int]] = field(default_factory=list)
    error: str = ""  # why its gradient could not be compared
    located: Difference | None = None  # a wrong element, where a direction was wrong

    @property
    def status(self) -> str:
        """The verdict: "wrong", "right", "kink" (every number has a kink) or "vacuous" (every number is 0)."""
        found = {d.status for d in self.differences}
        if self.error or WRONG in found:
            return WRONG
        return next((status for status in (RIGHT, KINK) if status in found), VACUOUS)

    @property
    def wrong(self) -> list[Difference]:
        return [d for d in self.differences if d.status == WRONG]

    @property
    def kinks(self) -> list[Difference]:
        return [d for d in self.differences if d.status == KINK]

    @property
    def largest_error(self) -> float:
        """The largest difference, kinks left out, over the largest gradient; 0 for a vacuous check."""
        if self.status == VACUOUS:
            return 0.0
        errors = [d.error for d in self.differences if d.status != KINK]
        largest = math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)
        return 0.0 if largest == 0 else largest / max(self.scale, 1e-300)

    def explain(self) -> str:
        """What is wrong with it first, as a sentence without a full stop."""
        if self.error:
            return self.error
        first = self.wrong[0]
        text = f"{self.name}, {first.where}: {first} (allowed difference {first.allowed:.1e})"
        return f"{text}; a wrong element is {self.finding}" if self.located else text

    @property
    def finding(self) -> str:
        """``layer2.0.bn1.weight[5]: analytic …, numeric …, relative error …``"""
        element = self.located or next((d for d in self.wrong if d.index is not None), None)
        return self.explain() if element is None else f"{self.name}{list(map(int, element.index or ()))}: {element}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "status": self.status,
            "compared": len(self.differences),
            "largest_error": _number(self.largest_error),
            "h": _number(self.h),
            "error": self.error,
            "wrong": [_entry(d) for d in self.wrong[:20]],
            "located": _entry(self.located) if self.located else None,
            "kinks": [_entry(d) for d in self.kinks[:20]],
            "sweep": [{"h": h, "difference": _number(error), "flips": flips} for h, error, flips in self.sweep],
        }


def _entry(d: Difference) -> dict[str, Any]:
    return {
        "where": d.where,
        "index": None if d.index is None else list(map(int, d.index)),
        "analytic": _number(d.analytic),
        "numeric": _number(d.numeric),
        "relative_error": _number(d.relative_error),
        "allowed": d.allowed,
        "h": d.h,
        "interval": None if d.interval is None else [_number(v) for v in d.interval],
        "flips": d.flips,
    }


def _number(x: float) -> float | None:
    """JSON has no NaN."""
    return x if math.isfinite(x) else None


@dataclass
class GradcheckResult:
    """The outcome of a check: true (``assert result``) when nothing is wrong; ``print(result)`` prints a table.

    checked: a Checked for each input or parameter. notes: remarks, such as on a promotion to float64. location: a sentence
    on the first wrong module and operation; module, operation: their names. finding: the wrong element of that module.
    error: why nothing could be compared, or "".
    """

    name: str
    checked: list[Checked] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    finding: str = ""
    location: str = ""
    module: str | None = None
    operation: str | None = None

    @property
    def passed(self) -> bool:
        return not self.error and all(c.status != WRONG for c in self.checked)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def wrong(self) -> list[Checked]:
        """The inputs and parameters whose gradient is wrong."""
        return [c for c in self.checked if c.status == WRONG]

    @property
    def vacuous(self) -> list[Checked]:
        """The inputs and parameters whose true gradient is ≈ 0 everywhere, so that the check shows nothing."""
        return [c for c in self.checked if c.status == VACUOUS]

    @property
    def kinks(self) -> list[tuple[str, Difference]]:
        """(name, Difference) for each number that was taken across a kink."""
        return [(c.name, d) for c in self.checked for d in c.kinks]

    @property
    def compared(self) -> int:
        return sum(len(c.differences) for c in self.checked)

    @property
    def largest_error(self) -> float:
        errors = [c.largest_error for c in self.checked]
        return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)

    def explain(self) -> str:
        """What is wrong and where; an empty string when nothing is."""
        if self.passed:
            return ""
        what = self.finding or self.error or self.wrong[0].explain()
        return f"{what}. {self.location}" if self.location else what

    def raise_if_wrong(self) -> Self:
        """Raise GradcheckError with ``explain()`` unless the check passed; returns self."""
        if not self.passed:
            raise GradcheckError(f"{self.name}: {self.explain()}", self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``json.dumps``."""
        return {
            "name": self.name,
            "passed": self.passed,
            "compared": self.compared,
            "largest_error": _number(self.largest_error),
            "kinks": len(self.kinks),
            "vacuous": [c.name for c in self.vacuous],
            "notes": self.notes,
            "explanation": self.explain(),
            "module": self.module,
            "operation": self.operation,
            "checked": [c.to_dict() for c in self.checked],
        }

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        kinks = f", {len(self.kinks)} at a kink" if self.kinks else ""
        vacuous = f", vacuous: {', '.join(c.name for c in self.vacuous)}" if self.vacuous else ""
        return f"<{self.name} {verdict}: {self.compared} numbers compared{kinks}{vacuous}>"

    def __str__(self) -> str:
        width = max([len(c.name) for c in self.checked], default=0)
        lines = [repr(self)[1:-1]]
        for c in self.checked:
            error = f"{c.largest_error:.1e}" if c.differences else "-"
            lines.append(f"  {c.name:<{width}}  {c.shape!s:<16}  {c.status:<7}  error {error:<8} h {c.h:.0e}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes] + [self.explain()] * (not self.passed))
