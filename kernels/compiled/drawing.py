"""Draws the built-in data set: small colour images of a shape or a texture, each from a key.

An image is painted in layers on a float canvas: a shaded background, strokes, the shape or the texture, more strokes,
noise. Shapes are signed distances d in pixels (negative inside; Quílez, "2D distance functions"), and a pixel's coverage
is clip(1/2 − d, 0, 1), for anti-aliasing.

Every random number is a hash of (seed, split, image, draw), so an image does not depend on how many are drawn or on
which thread. Only + − × ÷ √ and comparisons are used, which IEEE 754 rounds identically on every machine, so images are
bitwise the same everywhere.
"""

import math

import numpy as np

from ...errors import DtypeError, ShapeError
from .. import keyed_random
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from ..runtime.threads import launch

TEXTURES = 5  # labels 0–4 are disc, triangle, square, star, cross; from 5 on stripes, checks, dots, rings, zigzag
SIZE = 32  # pixels per side
LATTICE = 6  # smooth noise interpolates LATTICE × LATTICE random values

_ONE, _11, _20, _40 = np.uint64(1), np.uint64(11), np.uint64(20), np.uint64(40)
_1023, _10 = np.uint64(1023), np.uint64(10)
_ULP = 2.0**-53

_scramble = njit(inner=True, lean=False)(keyed_random.scramble)


def draw_shapes(images, labels, key):
    """Fill ``images`` (N, 32, 32, 3) uint8 with drawings of ``labels`` (N,) int64.

    Image i depends only on (key, i, label); ``key`` is an array of one uint64.
    Raises ShapeError and DtypeError for other arrays.
    """
    if images.shape != (len(labels), SIZE, SIZE, 3):
        raise ShapeError(f"images of shape {images.shape} for {len(labels)} labels: it is (N, {SIZE}, {SIZE}, 3)")
    if images.dtype != np.uint8 or labels.dtype != np.int64:
        raise DtypeError(f"images are uint8 and labels int64, not {images.dtype} and {labels.dtype}")
    launch(_draw_all, images, labels, key)


@njit()
def _draw_all(share, shares, thread, images, labels, key):
    if share < 0:
        return on_threads(share, shares)
    canvas = np.empty((SIZE, SIZE, 3))
    for i in range(share * len(labels) // shares, (share + 1) * len(labels) // shares):
        _draw(images[i], labels[i], _scramble(key[0], np.uint64(i)), canvas)
    return 0


@njit(inner=True, lean=False)
def _draw(image, label, key, canvas):
    rng = np.empty(2, np.uint64)
    rng[0] = key
    rng[1] = 0
    ground = _paint_background(canvas, rng)
    for _ in range(_below(rng, 4)):
        _paint_stroke(canvas, rng)
    if label < TEXTURES:
        _paint_shape(canvas, rng, label, ground)
    else:
        _paint_texture(canvas, rng, label, ground)
    for _ in range(_below(rng, 3)):
        _paint_stroke(canvas, rng)
    _develop(image, canvas, rng)


# Random numbers: rng = [key, number of draws so far].


@njit(inner=True, lean=False)
def _bits(rng):
    bits = _scramble(rng[0], rng[1])
    rng[1] += _ONE
    return bits


@njit(inner=True, lean=False)
def _uniform(rng, low, high):
    return low + (high - low) * (np.float64(_bits(rng) >> _11) * _ULP)


@njit(inner=True, lean=False)
def _below(rng, count):
    return int(_uniform(rng, 0.0, 1.0) * count)


@njit(inner=True, lean=False)
def _direction(rng):
    """A uniformly random unit vector, without sine and cosine: a random point of the disc, moved to its rim."""
    while True:
        x, y = _uniform(rng, -1.0, 1.0), _uniform(rng, -1.0, 1.0)
        length = math.sqrt(x * x + y * y)
        if 0.1 < length < 1.0:
            return x / length, y / length


@njit(inner=True, lean=False)
def _colour(rng):
    return _uniform(rng, 0.05, 0.95), _uniform(rng, 0.05, 0.95), _uniform(rng, 0.05, 0.95)


@njit(inner=True, lean=False)
def _colour_unlike(rng, other, least):
    """A random colour at a distance of at least ``least`` from another one."""
    while True:
        colour = _colour(rng)
        r, g, b = colour[0] - other[0], colour[1] - other[1], colour[2] - other[2]
        if r * r + g * g + b * b >= least * least:
            return colour


# Drawing primitives.


@njit(inner=True, lean=False)
def _clip(x, low, high):
    return min(max(x, low), high)


@njit(inner=True, lean=False)
def _wave(t):
    """A triangle wave of period 1: 1 at the integers, −1 halfway between them, slope ±4."""
    return 4.0 * abs(t - math.floor(t) - 0.5) - 1.0


@njit(inner=True, lean=False)
def _blend(canvas, y, x, colour, cover):
    for c in range(3):
        canvas[y, x, c] += cover * (colour[c] - canvas[y, x, c])


@njit(inner=True, lean=False)
def _lattice(rng):
    values = np.empty((LATTICE, LATTICE))
    for i in range(LATTICE):
        for j in range(LATTICE):
            values[i, j] = _uniform(rng, -1.0, 1.0)
    return values


@njit(inner=True, lean=False)
def _smooth_noise(lattice, y, x):
    """Value noise in [−1, 1] at a pixel, interpolated from the lattice."""
    scale = (LATTICE - 1) / SIZE
    v, u = (y + 0.5) * scale, (x + 0.5) * scale
    i, j = int(v), int(u)
    v, u = v - i, u - j
    v, u = v * v * (3.0 - 2.0 * v), u * u * (3.0 - 2.0 * u)
    top = lattice[i, j] + u * (lattice[i, j + 1] - lattice[i, j])
    bottom = lattice[i + 1, j] + u * (lattice[i + 1, j + 1] - lattice[i + 1, j])
    return top + v * (bottom - top)


# Layers.


@njit(inner=True, lean=False)
def _paint_background(canvas, rng):
    """A gradient between two similar colours, bent by smooth noise. Returns the middle colour."""
    middle = _colour(rng)
    spread = _uniform(rng, 0.0, 0.25)
    change = (_uniform(rng, -spread, spread), _uniform(rng, -spread, spread), _uniform(rng, -spread, spread))
    cos, sin = _direction(rng)
    bend = _uniform(rng, 0.0, 1.0)
    lattice = _lattice(rng)
    for y in range(SIZE):
        for x in range(SIZE):
            along = (cos * (x - 15.5) + sin * (y - 15.5)) / 16.0
            amount = along + bend * _smooth_noise(lattice, y, x)
            for c in range(3):
                canvas[y, x, c] = middle[c] + amount * change[c]
    return middle


@njit(inner=True, lean=False)
def _paint_stroke(canvas, rng):
    """Clutter: a short, straight, partly transparent stroke of any colour."""
    x0, y0 = _uniform(rng, 0.0, 32.0), _uniform(rng, 0.0, 32.0)
    cos, sin = _direction(rng)
    length, width = _uniform(rng, 2.0, 14.0), _uniform(rng, 0.5, 1.2)
    colour, opacity = _colour(rng), _uniform(rng, 0.4, 0.9)
    for y in range(SIZE):
        for x in range(SIZE):
            dx, dy = x + 0.5 - x0, y + 0.5 - y0
            along = dx * cos + dy * sin
            short = along - _clip(along, 0.0, length)
            across = dy * cos - dx * sin
            cover = _clip(0.5 + width - math.sqrt(short * short + across * across), 0.0, 1.0)
            if cover > 0.0:
                _blend(canvas, y, x, colour, cover * opacity)


@njit(inner=True, lean=False)
def _shape_distance(label, u, v):
    """The signed distance to shape ``label`` with a radius of about 1, negative inside."""
    if label == 0:  # disc
        return math.sqrt(u * u + v * v) - 0.9
    if label == 1:  # triangle, equilateral
        return max(abs(u) * 0.8660254037844386 - v * 0.5, v) - 0.55
    if label == 2:  # square
        return max(abs(u), abs(v)) - 0.8
    if label == 3:  # star: folded onto one of its ten half-points
        return _star_distance(u, v)
    u, v = abs(u), abs(v)  # cross: two bars
    return min(max(u - 1.0, v - 0.3), max(u - 0.3, v - 1.0))


@njit(inner=True, lean=False)
def _star_distance(u, v):
    cos36, sin36 = 0.8090169943749475, 0.5877852522924731
    u = abs(u)
    fold = 2.0 * max(cos36 * u - sin36 * v, 0.0)
    u, v = u - fold * cos36, v + fold * sin36
    fold = 2.0 * max(-cos36 * u - sin36 * v, 0.0)
    u, v = abs(u + fold * cos36), v + fold * sin36
    v -= 1.1
    edge_u, edge_v = 0.45 * sin36, 0.45 * cos36 - 1.0
    along = _clip((u * edge_u + v * edge_v) / (edge_u * edge_u + edge_v * edge_v), 0.0, 1.1)
    du, dv = u - edge_u * along, v - edge_v * along
    distance = math.sqrt(du * du + dv * dv)
    return distance if v * edge_u - u * edge_v > 0.0 else -distance


@njit(inner=True, lean=False)
def _paint_shape(canvas, rng, label, ground):
    """A shape of any position, size, direction and colour: filled, shaded or an outline, and slightly stretched."""
    radius = _uniform(rng, 6.5, 13.0)
    room = 16.0 - radius
    x0, y0 = 16.0 + _uniform(rng, -room, room), 16.0 + _uniform(rng, -room, room)
    cos, sin = _direction(rng)
    stretch = _uniform(rng, 0.88, 1.14)
    colour = _colour_unlike(rng, ground, 0.35)
    shade = _uniform(rng, -0.2, 0.2)
    opacity = _uniform(rng, 0.8, 1.0)
    line = _uniform(rng, 1.6, 3.2) if _uniform(rng, 0.0, 1.0) < 0.25 else 99.0
    for y in range(SIZE):
        for x in range(SIZE):
            dx, dy = x + 0.5 - x0, y + 0.5 - y0
            u = (dx * cos + dy * sin) / (radius * stretch)
            v = (dy * cos - dx * sin) / radius * stretch
            distance = _shape_distance(label, u, v) * radius
            distance = max(distance, -line - distance)  # an outline is the shape minus a smaller copy of it
            cover = _clip(0.5 - distance, 0.0, 1.0)
            if cover > 0.0:
                light = 1.0 + shade * u
                lit = (colour[0] * light, colour[1] * light, colour[2] * light)
                _blend(canvas, y, x, lit, cover * opacity)


@njit(inner=True, lean=False)
def _texture_cover(label, u, v, period, duty, extra):
    """How much the texture's ink covers the point (u, v), in pixels; ``duty`` shifts the proportion of ink."""
    if label == 5:  # stripes
        return 0.5 + (_wave(u / period) + duty) * period / 4.0
    if label == 6:  # checks: the product of two square waves
        a = _clip(_wave(u / (1.5 * period)) * period / 2.7, -0.5, 0.5)
        b = _clip(_wave(v / (1.5 * period)) * period / 2.7, -0.5, 0.5)
        return 0.5 + 2.0 * a * b
    if label == 7:  # dots on a square grid
        a = (u / period - math.floor(u / period) - 0.5) * period
        b = (v / period - math.floor(v / period) - 0.5) * period
        return 0.5 + (0.31 + 0.2 * duty) * period - math.sqrt(a * a + b * b)
    if label == 8:  # rings
        return 0.5 + (_wave(math.sqrt(u * u + v * v) / period) + duty) * period / 4.0
    return 0.5 + (_wave((u + extra * _wave(v / (1.7 * period))) / period) + duty) * period / 6.0  # zigzag


@njit(inner=True, lean=False)
def _paint_texture(canvas, rng, label, ground):
    """A texture of any direction and period, on the image or a blob of it: two colours, or ink on the background."""
    x0, y0 = _uniform(rng, 9.0, 23.0), _uniform(rng, 9.0, 23.0)
    cos, sin = _direction(rng)
    period, duty = _uniform(rng, 4.5, 8.0), _uniform(rng, -0.25, 0.25)
    extra = period * _uniform(rng, 0.45, 0.6)
    paper = _colour(rng)
    see_through = _uniform(rng, 0.0, 1.0) < 0.5
    if see_through:
        paper = ground
    ink, opacity = _colour_unlike(rng, paper, 0.35), _uniform(rng, 0.75, 1.0)
    radius = _uniform(rng, 11.0, 26.0)  # large ones extend beyond the image
    lattice = _lattice(rng)
    for y in range(SIZE):
        for x in range(SIZE):
            dx, dy = x + 0.5 - x0, y + 0.5 - y0
            rim = radius * (1.0 + 0.3 * _smooth_noise(lattice, y, x)) - math.sqrt(dx * dx + dy * dy)
            inside = _clip(0.5 + rim, 0.0, 1.0)
            if inside > 0.0:
                u, v = dx * cos + dy * sin, dy * cos - dx * sin
                if not see_through:
                    _blend(canvas, y, x, paper, inside * opacity)
                cover = _clip(_texture_cover(label, u, v, period, duty, extra), 0.0, 1.0)
                _blend(canvas, y, x, ink, inside * cover * opacity)


@njit(inner=True, lean=False)
def _develop(image, canvas, rng):
    """Add noise of a random strength and convert to bytes."""
    strength = _uniform(rng, 0.02, 0.2)
    for y in range(SIZE):
        for x in range(SIZE):
            bits = _bits(rng)
            for c in range(3):  # the sum of two uniform numbers, from twenty bits of the hash
                noise = (np.float64(bits & _1023) + np.float64((bits >> _10) & _1023)) / 1023.0 - 1.0
                bits >>= _20
                image[y, x, c] = np.uint8(_clip((canvas[y, x, c] + strength * noise) * 255.0 + 0.5, 0.0, 255.0))
