"""What became of each name when weights were loaded."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import nearest, plural, printable


class Misshapen(NamedTuple):
    """An array that has another shape in the file than in the model."""

    in_file: str
    in_model: str
    found: tuple[int, ...]
    wanted: tuple[int, ...]


class Row(NamedTuple):
    """A name for a table. what: "matched", "kept", "missing", "unexpected", "misshapen" or "ignored"."""

    what: str
    in_file: str
    in_model: str
    note: str


@dataclass
class LoadReport:
    """What ``load_weights`` found, key by key; the file's names come before the model's.

    path, model: the file, and the network's name. place: the keys on the way to the state dict in what was saved, or "".
    matched: [(name in the file, name in the model)]. missing: names in the model that the file lacks. unexpected: names in
    the file that the model lacks. misshapen: see Misshapen. kept: names of a head in the model that stays as it was
    initialised. ignored: names in the file that no prediction needs. notes: sentences on what else was found.
    """

    path: str
    model: str = ""
    place: str = ""
    matched: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[Misshapen] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every array in the file has a place in the model, and the other way round."""
        return not (self.missing or self.unexpected or self.misshapen)

    def rows(self) -> list[Row]:
        """All names with what became of them, those that do not fit first."""
        misshapen = [Row("misshapen", m.in_file, m.in_model, f"{m.found}, not {m.wanted}") for m in self.misshapen]
        return [
            *misshapen,
            *(Row("missing", "", name, "") for name in self.missing),
            *(Row("unexpected", name, "", "") for name in self.unexpected),
            *(Row("kept", "", name, "as initialised") for name in self.kept),
            *(Row("ignored", name, "", "") for name in self.ignored),
            *(Row("matched", theirs, ours, "") for theirs, ours in self.matched),
        ]

    def table(self) -> str:
        """``rows()`` as text, with long names cut: all lines are as wide as the longest."""
        rows = [Row("", "in the file", "in the model", ""), *self.rows()]
        rows = [Row(*(printable(_cut(part)) for part in row)) for row in rows]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join("  ".join([*(f"{row[i]:{widths[i]}}" for i in range(3)), row.note]).rstrip() for row in rows)

    def __str__(self) -> str:
        where = f", {self.place}" if self.place else ""
        counts = {"misshapen": len(self.misshapen), "missing": len(self.missing), "unexpected": len(self.unexpected)}
        parts = [f"{self.path}{where}: {plural(len(self.matched), 'name')} matched"]
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        if self.kept:
            parts.append(f"{' and '.join(self.kept)} as initialised")
        return ", ".join([*parts, *self.notes])

    def misfit(self) -> str:
        """What does not fit, for an error: the counts, and the first few of each kind."""
        shapes = [
            f"{_cut(m.in_file)} is {m.found} in the file and {m.wanted} in the model" for m in self.misshapen[:FEW]
        ]
        unexpected = [name + nearest(name, self.missing) for name in map(_cut, self.unexpected[:FEW])]
        found = [
            _listed("misshapen", shapes, len(self.misshapen)),
            _listed("missing", self.missing[:FEW], len(self.missing)),
            _listed("unexpected", unexpected, len(self.unexpected)),
        ]
        place = f" ({self.place})" if self.place else ""
        return (
            f"{self.path}{place} does not fit {self.model}: {plural(len(self.matched), 'name')} matched; "
            + "; ".join(filter(None, found))
        )


FEW = 3  # names of a kind in an error


def _listed(what: str, few: list[str], count: int) -> str:
    """The first few names of a kind, and the number of the others; "" if there are none."""
    more = f" and {count - len(few):,} more" if count > len(few) else ""
    return f"{count:,} {what}: {', '.join(few)}{more}" if count else ""


def _cut(name: str) -> str:
    return name if len(name) <= 160 else f"{name[:160]} …"
