"""Folders of pictures that the tests draw."""

from pathlib import Path

import numpy as np
import pytest


def noise(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels):
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path)
    return path


def sizes(seed):
    """A height and a width from 24 to 79."""
    return np.random.default_rng([seed, 1]).integers(24, 80, 2).tolist()


def folder_of_noise(root, classes=("cat", "dog"), count=6, ending=".png"):
    """A folder for each class with images of different sizes. Returns root."""
    for c, name in enumerate(classes):
        for i in range(count):
            seed = 1000 * c + i
            save(Path(root, name, f"{i:03d}{ending}"), noise(seed, *sizes(seed)))
    return Path(root)


def folder_of_colours(root, classes=("blue", "red"), count=20, size=40):
    """Classes that a small network tells apart in a few steps: coloured discs on noise."""
    rows, columns = np.mgrid[:size, :size]
    for c, name in enumerate(classes):
        for i in range(count):
            rng = np.random.default_rng([c, i])
            pixels = rng.integers(0, 120, (size, size, 3), dtype=np.uint8)
            y, x, r = rng.integers(12, size - 12), rng.integers(12, size - 12), rng.integers(8, 12)
            pixels[(rows - y) ** 2 + (columns - x) ** 2 < r * r, 2 * (1 - c % 2)] = 250
            save(Path(root, name, f"{i:03d}.png"), pixels)
    return Path(root)
