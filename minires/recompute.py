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
                         │ pin()       ┌────────┐       its graph is freed
                         ├────────────►│ pinned │
        no recompute     │             │        │       discard() does nothing
        ─────────────────┼────────────►└────┬───┘
                         │ materialize()    │           somebody looks at it, and may change it
                         │             ┌────▼───┐
                         └────────────►│ array  │       one array, which operations and the user share
                                       └────────┘

    recompute: a function that returns the values (N, H, W, C), or None. What would be computed from these values later on
    (``add_dependant``) is stored before anybody can change them.
    """

    def __init__(self, operand: Operand | None, recompute: Callable[[], NDArray[Any]] | None = None) -> None:
        self._operand, self._recompute = operand, recompute
        self._dependants: list[weakref.WeakMethod[Callable[[], Any]]] = []

    def add_dependant(self, store: Callable[[], Any]) -> None:
        """store: a method, referred to weakly, that stores what else would be computed from these values later on."""
        self._dependants.append(weakref.WeakMethod(store))

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

    def array(self) -> NDArray[Any]:
        """The values (N, H, W, C), stored from now on, for whoever keeps them."""
        array = self.values()
        self._operand, self._recompute = Operand(array), None
        return array

    def discard(self) -> None:
        """Let go of the values, unless they are pinned."""
        if self._recompute is not None:
            self._operand = None

    def pin(self) -> None:
        """Discard no more, if the values are there: what they are recomputed from can go."""
        if self._operand is not None:
            self._recompute = None

    def materialize(self) -> NDArray[Any]:
        """The array, for somebody who may change it: all that depends on it is stored before."""
        dependants, self._dependants = [reference() for reference in self._dependants], []
        for store in dependants:
            if store is not None:
                store()
        return self.array()
