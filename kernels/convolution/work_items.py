"""What both convolution algorithms share: the problem, and its division into work items.

A work item is a group of whole images, or a band of rows of one image; of a grouped convolution, a slice of their channels.
The division depends on the shapes only, not on the number of threads, so every sum has a fixed reduction order and results are
bitwise the same for any number of threads.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..descriptors import GRADIENT, MASK
from ..memory_format import out_size
from ..runtime.jit import njit
from .prefetch import add_stream

PACKED_BYTES = 128 << 10  # of a packed band of an image, at most: it shares the L2 cache with the weights
SLICE_CHANNELS = 64  # in a slice of a grouped convolution, at least: packing and epilogue go over a pixel's channels


class Problem(NamedTuple):
    """One convolution: its sizes and its geometry (stride, padding, dilation, groups). Pairs are (height, width)."""

    images: int
    size: tuple
    channels: int
    filters: int
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    @property
    def out_size(self):
        return out_size(self.size, self.kernel, self.stride, self.padding, self.dilation)

    @property
    def x_shape(self):
        return self.images, *self.size, self.channels

    @property
    def y_shape(self):
        return self.images, *self.out_size, self.filters

    @property
    def w_shape(self):
        return *self.kernel, self.channels // self.groups, self.filters

    @property
    def group(self):
        """The Problem of one group."""
        return self._replace(channels=self.channels // self.groups, filters=self.filters // self.groups, groups=1)


@lru_cache(maxsize=512)
def slices_of(problem):
    """(slices, the Problem of one): a grouped convolution as several of fewer channels, each of one group if that is wide.

    A work item of one slice reads the weights of its groups alone, and packs the channels that they see.
    """
    groups, one = problem.groups, problem.group
    least = max(1, -(-SLICE_CHANNELS // max(1, min(one.channels, one.filters))))
    together = next((n for n in range(least, groups) if groups % n == 0), groups)
    slices = groups // together
    whole = problem._replace(channels=one.channels * together, filters=one.filters * together, groups=together)
    return slices, whole


@lru_cache(maxsize=512)
def multiply_adds(problem):
    """Those of the direct algorithm, of the forward pass or of either gradient."""
    return math.prod(problem.y_shape) * math.prod(problem.kernel) * problem.channels // problem.groups


@lru_cache(maxsize=512)
def problem_of(x_shape, w_shape, stride, padding, dilation, groups):
    """The Problem of x (N, H, W, C) ∗ w (KH, KW, C/groups, O)."""
    images, height, width, channels = x_shape
    size, kernel = (height, width), tuple(w_shape[:2])
    return Problem(images, size, channels, w_shape[3], kernel, stride, padding, dilation, groups)


class Layout(NamedTuple):
    """How a convolution is divided into work items, and how the images of an item are packed. All fields are ints.

    The images of an item are copied with zero borders into a buffer that stays in cache. Kernels take the layout as a record
    (``Layout.record``), which is one argument; a tuple would be unpacked into twenty, at ten times the compile time.
    """

    direct: int  # 1: no border is needed, and the images are read in place
    images: int  # images in one item
    band: int  # grid rows in one item
    bands: int  # items of one image or group of images
    items: int
    step: int  # image rows from one grid row to the next
    column_step: int  # image columns from one grid column to the next
    top: int  # zero rows above the image
    left: int  # zero columns to its left
    height: int  # rows of one image's packed band
    width: int  # its columns
    pitch: int  # elements from one pixel to the next: the channels, or a few more
    groups: int  # in one item
    columns: int  # of the product: the output channels of one group
    tile: int  # columns of the register tile
    all_images: int
    source_height: int
    source_width: int
    channels: int  # of the source, in the groups of an item
    out_row: int = 0  # output pixels from one grid row to the next
    out_pixels: int = 0  # output pixels of one image
    chunks: int = 0  # weight gradient: parts of the sum over items, independent of the number of threads
    splits: int = 0  # weight gradient: parts of its rows, if a part of the sum would otherwise be large
    column_splits: int = 0  # weight gradient: parts of its columns
    ahead: int = 0  # weight gradient: 1 if all items are packed before the first is used
    dense: int = 0  # weight gradient: 1 if dy is read pixel by pixel, as in the image, not in blocks of columns
    rows: int = 0  # positions of an item (weight gradient: rows of dw): the first offsets of an indirection table
    slices: int = 1  # of the channels: there are slices·items items, numbered slice by slice
    shared: int = 0  # 1: the slices are of the outputs' channels alone, and each reads all channels of the source

    def record(self):
        """The layout as an array of one record with the same field names."""
        return np.array([tuple(self)], [(name, np.int64) for name in self._fields])

    @property
    def packed_size(self):
        """Elements of the buffer for a packed item."""
        return 0 if self.direct else self.images * self.height * self.width * self.pitch


@lru_cache(maxsize=512)
def item_counts(layout):
    """The number of values per channel that each item computes: (items,) float64."""
    item = np.arange(layout.items)
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = np.minimum(layout.images, layout.all_images - image)
    rows = np.minimum(layout.band * layout.out_row, layout.out_pixels - q * layout.out_row)
    return np.asarray(images * layout.out_pixels if layout.bands == 1 else rows, np.float64)


@njit(inner=True)
def item_stretch(item, layout, O):
    """(start, stop): the elements of the outputs that an item computes. O: output channels."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    rows = min(layout.band * layout.out_row, layout.out_pixels - q * layout.out_row)
    first = image * layout.out_pixels + q * layout.out_row
    return first * O, (first + (images * layout.out_pixels if layout.bands == 1 else rows)) * O


@njit(inner=True)
def item_source(item, layout):
    """(start, stop): the elements of the images that an item is packed from."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    H, row = layout.source_height, layout.source_width * layout.channels
    top = q * layout.step - layout.top
    first, last = (0, images * H) if layout.bands == 1 else (max(0, top), min(H, top + layout.height))
    return (image * H + first) * row, (image * H + last) * row


@njit(inner=True)
def add_next_source(
    streams, n,  # the streams, and how many there are
    item, last, layout,  # the next item is item + 1 if that is less than ``last``
    kind, source, partner,  # an Operand
    blocks, shares,  # how an item is divided (prefetch.py)
):  # fmt: skip
    """Add streams for what the next item will be packed from. Returns their new number."""
    if item + 1 < last:
        start, stop = item_source(item + 1, layout)
        n = add_stream(streams, n, source, start, stop, blocks, shares, 0)
        if kind == GRADIENT:
            n = add_stream(streams, n, partner, start, stop, blocks, shares, 0)
    return n


@njit(inner=True)
def add_epilogue(
    streams, n,  # the streams, and how many there are
    flags, other, c, z,  # an Epilogue
    start, stop,  # the item's stretch of its arrays
    blocks, shares,  # how an item is divided (prefetch.py)
):  # fmt: skip
    """Add streams for what ``finish`` reads besides the outputs. Returns their new number."""
    for array, wanted in ((other, flags[2] != 0), (c, flags[0] == MASK), (z, flags[3] != 0)):
        if wanted:
            n = add_stream(streams, n, array, start, stop, blocks, shares, 0)
    return n
