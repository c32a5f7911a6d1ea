"""Where an image is looked at to make it larger or smaller: positions along an axis, and their weights."""

from typing import NamedTuple

import numpy as np

from ..errors import ShapeError
from .memory_format import Array


class Line(NamedTuple):
    """Of each position along an axis of the result: the one or two positions of the image that it is a mean of.

    first, second: int64, ascending, second = first or first + 1. weight: that of the second, of the image's dtype.
    """

    first: Array
    second: Array
    weight: Array

    def check(self, op: str, size: int) -> None:
        """Raise ShapeError unless all positions are those of an axis of this size, and ascend."""
        first, second = self.first, self.second
        steps = second - first
        inside = len(first) and first[0] >= 0 and second[-1] < size
        if not inside or (np.diff(first) < 0).any() or steps.min() < 0 or steps.max() > 1:
            raise ShapeError(f"{op}: the positions are not those of an axis of length {size}, in ascending order")

    def readers(self, size: int) -> Array:
        """(size, 2): of each position of the image, the first of the result that reads it, and the one after the last."""
        positions = np.arange(size)
        return np.stack(
            [np.searchsorted(self.second, positions, "left"), np.searchsorted(self.first, positions, "right")], axis=1
        )
