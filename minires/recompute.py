"""Activations that are discarded after the forward pass and recomputed in the backward pass (Chen et al. 2016).

Of every second residual block in a row, the output is not kept: one pass over memory computes it again from the block's last
convolution and its shortcut, with the same bits. It saves one of the six arrays that two blocks keep.
"""

import weakref
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from . import kernels
from .kernels.descriptors import PLAIN, Operand


class SavedActivation:
    """What operations keep of a Tensor (N, C, H, W) for the backward pass: an ``Operand``, or how to recompute it.

    Its states, and what moves it from one to another:

                           discard()   ┌───────────┐
                         ┌────────────►│ discarded │    the next block has read it
                         │             └─────┬─────┘
        recompute   ┌────┴───┐   operand()   │          the backward pass needs it again
        ───────────►│ stored │◄──────────────┘
                    └────┬───┘
                         │ pin()       ┌────────┐       somebody looks at it and may change it, or its graph is freed
                         └────────────►│ pinned │
        no recompute                   │        │       discard() does nothing
        ──────────────────────────────►└────────┘

    recompute: a function that returns the values (N, H, W, C), or None. What is computed from these values later on
    (``add_dependant``) is computed before anybody can change them.
    """

    def __init__(self, operand: Operand | None, recompute: Callable[[], NDArray[Any]] | None = None) -> None:
        self._operand, self._recompute = operand, recompute
        self._dependants: list[weakref.ref[Any]] = []  # weak references to what has a materialize()

    def add_dependant(self, dependant: Any) -> None:
        self._dependants.append(weakref.ref(dependant))

    @property
    def is_pinned(self) -> bool:
        return self._recompute is None

    def operand(self) -> Operand:
        """The Operand, recomputed if it was discarded; it stays until it is discarded again."""
        if self._operand is None:
            self._operand = Operand(self.values())
        return self._operand

    def values(self) -> NDArray[Any]:
        """(N, H, W, C). Those that are not stored are computed for the caller alone."""
        if self._operand is not None:
            return self._operand.array if self._operand.kind == PLAIN else kernels.values(self._operand)
        assert self._recompute is not None  # one of the two is always there
        return self._recompute()

    def discard(self) -> None:
        """Let go of the values, unless they are pinned."""
        if self._recompute is not None:
            self._operand = None

    def pin(self) -> None:
        """Discard no more, if the values are there: what they are recomputed from can go."""
        if self._operand is not None:
            self._recompute = None

    def materialize(self) -> None:
        """Be pinned, and let all that depends on it be stored: somebody may change it."""
        dependants, self._dependants = [reference() for reference in self._dependants], []
        for dependant in dependants:
            if dependant is not None:
                dependant.materialize()
        self.operand()
        self.pin()
