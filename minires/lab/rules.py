"""What becomes of a residual addition's gradient on its way into the residual function and into the shortcut."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .graph import Addition, Channels, Rule


class ByLength(Rule):
    """Channel k is the gradient along all paths that pass through k residual functions (Veit et al. 2016, §3).

    longest: paths that pass through more are left out. signs: by the name of an addition, what its residual function's gradient
    is multiplied by, +1 or −1; see ``paths.py``.
    """

    def __init__(self, longest: int | None = None, signs: Mapping[str, float] | None = None) -> None:
        self.longest, self.signs = longest, signs

    def branch(self, addition: Addition, channels: Channels) -> Channels:
        longer: Channels = [None, *channels]
        if self.longest is not None:
            longer = longer[: self.longest + 1]
        return longer if self.signs is None else _signed(longer, self.signs[addition.name])


class MeanLength(Rule):
    """Two channels: the gradient g, and Σ k·g_k over the lengths k of paths.

    The second is 0 to begin with. A residual function adds 1 to the length of every path that passes through it. signs: as of
    ``ByLength``.
    """

    def __init__(self, signs: Mapping[str, float] | None = None) -> None:
        self.signs = signs

    def branch(self, addition: Addition, channels: Channels) -> Channels:
        gradient, weighted = [*channels, None, None][:2]
        longer: Channels = [None, weighted]
        if gradient is not None:
            longer = [gradient, gradient if weighted is None else weighted + gradient]
        return longer if self.signs is None else _signed(longer, self.signs[addition.name])


def _signed(channels: Channels, sign: float) -> Channels:
    """The channels times a sign."""
    return [None if g is None else g * g.dtype.type(sign) for g in channels]


class OnePath(Rule):
    """The gradient along one path: through the residual functions that are named, and past all others."""

    def __init__(self, through: Collection[str]) -> None:
        self.through = frozenset(through)

    def branch(self, addition: Addition, channels: Channels) -> Channels:
        return channels if addition.name in self.through else [None] * len(channels)

    def shortcut(self, addition: Addition, channels: Channels) -> Channels:
        return [None] * len(channels) if addition.name in self.through else channels


class Cut(Rule):
    """No gradient through the shortcuts, or none through the residual functions.

    side: "shortcut" or "branch"; only: the name of the one addition where it is cut, or None for all.
    """

    def __init__(self, side: str, only: str | None = None) -> None:
        self.side, self.only = side, only

    def _cut(self, side: str, addition: Addition, channels: Channels) -> Channels:
        cut = self.side == side and self.only in (None, addition.name)
        return [None] * len(channels) if cut else channels

    def branch(self, addition: Addition, channels: Channels) -> Channels:
        return self._cut("branch", addition, channels)

    def shortcut(self, addition: Addition, channels: Channels) -> Channels:
        return self._cut("shortcut", addition, channels)
