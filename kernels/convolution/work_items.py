"""What both algorithms of convolution share: the problem, and how it is cut into items of work.

An item is a group of whole images, or a band of rows of one image. The partition is fixed by the shapes, whatever the number
of threads, so that every sum has one order and the bits do not depend on the threads.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..descriptors import GRADIENT, MASK
from ..memory_format import out_size
from ..runtime.jit import njit
from .prefetch import add_stream

PACKED_BYTES = 128 << 10  # of a packed band of an image: it shares the L2 cache with the weights


class Problem(NamedTuple):
    """One convolution: its sizes, and its geometry (stride, padding, dilation, groups). Pairs are (height, width)."""

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


@lru_cache(maxsize=512)
def problem_of(x_shape, w_shape, stride, padding, dilation, groups):
    """The Problem of x (N, H, W, C) ∗ w (KH, KW, C/groups, O)."""
    images, height, width, channels = x_shape
    size, kernel = (height, width), tuple(w_shape[:2])
    return Problem(images, size, channels, w_shape[3], kernel, stride, padding, dilation, groups)


class Layout(NamedTuple):
    """How a convolution is cut into items of work, and how the images of an item are packed. All int.

    The images of an item are copied with their zero border into a buffer that stays in cache. Kernels get the layout as a
    record array (``Layout.record``): as one argument, where a tuple would be unpacked into twenty, at ten times the compile
    time.
    """

    direct: int  # 1: no border is needed, the image is read where it is
    images: int  # images in one item
    band: int  # grid rows in one item
    bands: int  # items that one image, or group of images, is cut into
    items: int
    step: int  # image rows for one grid row
    column_step: int  # image columns for one grid column
    top: int  # zero rows above the image
    left: int  # zero columns before it
    height: int  # rows of the packed band of one image
    width: int  # its columns
    pitch: int  # elements from one pixel to the next: the channels, or a few more
    groups: int
    columns: int  # of the product: output channels of one group
    tile: int  # columns of the register tile
    all_images: int
    source_height: int
    source_width: int
    channels: int  # of the source: all groups'
    out_row: int = 0  # output pixels from one grid row to the next
    out_pixels: int = 0  # output pixels of one image
    chunks: int = 0  # weight gradient: parts that the sum over items is cut into, whatever the number of threads
    splits: int = 0  # weight gradient: parts that its rows are cut into, where a part of the sum would be large
    dense: int = 0  # weight gradient: 1 when pixels of dy are read as they stand in the image, not in blocks of columns
    rows: int = 0  # positions of an item (weight gradient: rows of dw), whose offsets begin an indirection table

    def record(self):
        """The same as an array of one record, with the fields' names."""
        return np.array([tuple(self)], [(name, np.int64) for name in self._fields])

    @property
    def packed_size(self):
        """Elements of the buffer that an item is packed into."""
        return 0 if self.direct else self.images * self.height * self.width * self.pitch


@lru_cache(maxsize=512)
def item_counts(layout):
    """How many values of a channel each item computes, an array of float64."""
    item = np.arange(layout.items)
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = np.minimum(layout.images, layout.all_images - image)
    rows = np.minimum(layout.band * layout.out_row, layout.out_pixels - q * layout.out_row)
    return np.asarray(images * layout.out_pixels if layout.bands == 1 else rows, np.float64)


@njit(inner=True)
def item_stretch(item, layout, O):
    """(start, stop): the elements of the outputs that an item computes."""
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
    item, last, layout,  # the next item is item + 1, if that is less than ``last``
    kind, source, partner,  # an Operand
    blocks, shares,  # how an item is divided (prefetch.py)
):  # fmt: skip
    """Add streams of what the next item will be packed from. Returns their number."""
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
    """Add streams of what ``finish`` reads beside the outputs. Returns their number."""
    for array, wanted in ((other, flags[2] != 0), (c, flags[0] == MASK), (z, flags[3] != 0)):
        if wanted:
            n = add_stream(streams, n, array, start, stop, blocks, shares, 0)
    return n
