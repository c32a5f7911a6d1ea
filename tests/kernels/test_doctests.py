"""The doctests of minires.kernels, whose folder is outside minires/ in a checkout."""

import doctest
import importlib
import pkgutil

import pytest

from minires import kernels

MODULES = [kernels.__name__, *(m.name for m in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}."))]


def test_some_kernels_have_doctests():
    assert sum(len(doctest.DocTestFinder().find(importlib.import_module(name))) for name in MODULES) > 10


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
