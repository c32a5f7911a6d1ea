"""The bug zoo: mistakes that people make in a backward pass, to be put in on purpose, found and understood.

``inject(name)`` puts one in for the length of a ``with`` block; ``MISTAKES`` has all by name. Those of ``backward.py`` and
``norms.py`` are in the backward pass alone, and gradcheck finds each; those of ``both_passes.py`` are in both passes, so that
only a comparison with a right network does. ``bugs`` trains and checks a network with each.

The claim that such networks train is Karpathy's, "A Recipe for Training Neural Networks", 2019.
"""

from .backward import BACKWARD
from .both_passes import BOTH_PASSES
from .experiment import QUICK, Training, bugs
from .injection import Mistake
from .result import Bugs
from .zoo import MISTAKES, find, inject

__all__ = ["BACKWARD", "BOTH_PASSES", "MISTAKES", "QUICK", "Bugs", "Mistake", "Training", "bugs", "find", "inject"]
