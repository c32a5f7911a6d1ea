"""Array kernels: ndarrays in, ndarrays out. No Tensor, no autograd.

Two back ends offer the same functions (listed in ``FUNCTIONS``):

    numba      compiled, parallel, the default (``compiled/`` and ``convolution/``, built on ``runtime/``)
    reference  plain NumPy with explicit im2col, written to be read (``reference/``)

Images are C-contiguous NHWC views, (N, H, W, C); convolution weights are (KH, KW, I, O). See ``memory_format.py``.
Operations are fused by passing prologues and epilogues to convolutions (``descriptors.py``).
Kernels are attributes of this package: ``kernels.conv2d(x, w, …)`` runs on the current back end.
"""

import threading
from functools import cache
from importlib import import_module

from ..decorators import Decorator
from ..errors import ConfigError, nearest
from .memory_format import copy, nchw, nhwc, reshaped, to_channels_last
from .runtime import fork
from .runtime.memory_pool import empty, empty_like, zeros
from .runtime.recording import also, computed
from .runtime.threads import get_num_threads, set_num_threads

FUNCTIONS = (
    "add",
    "add_relu",
    "augment_batch",
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_stats",
    "concat_channels",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "cross_entropy",
    "cross_entropy_grad",
    "matmul",
    "max_pool2d",
    "max_pool2d_grad",
    "norm_backward_terms",
    "norm_fixed_terms",
    "norm_forward_terms",
    "not_finite",
    "pointwise",
    "relu",
    "relu_grad",
    "resize",
    "resize_grad",
    "sgd_step",
    "split_channels",
    "update_running_stats",
    "values",
    "zero_pad_shortcut",
    "zero_pad_shortcut_grad",
)
fork.register()

_NAMES = frozenset(FUNCTIONS)
BACKENDS = {"numba": "compiled.backend", "reference": "reference"}  # name -> module in this package
_local = threading.local()


def get_backend() -> str:
    """The name of this thread's current back end: ``"numba"`` or ``"reference"``."""
    return getattr(_local, "backend", "numba")


class backend(Decorator):
    """Run kernels on another back end inside: ``"numba"`` (fast) or ``"reference"`` (readable).

    A context manager and a decorator. Raises ConfigError for an unknown name.

    >>> with backend("reference"):
    ...     get_backend()
    'reference'
    """

    def __init__(self, name: str) -> None:
        if name not in BACKENDS:
            raise ConfigError(
                f"unknown back end {name!r}{nearest(name, BACKENDS)}: choose one of {', '.join(BACKENDS)}"
            )
        self.name = name
        self.before: list[str] = []  # a stack: a context may be nested in itself

    def __enter__(self) -> None:
        self.before.append(get_backend())
        _local.backend = self.name

    def __exit__(self, *exc: object) -> None:
        _local.backend = self.before.pop()

    def _recreate_cm(self):  # for Decorator: each call of a decorated function gets its own instance
        return type(self)(self.name)


@cache
def _backend_module(name):
    return import_module(f".{BACKENDS[name]}", __name__)


def load() -> None:
    """Import the compiled back end, which takes half a second. Raises ConfigError if Numba cannot work here."""
    _backend_module("numba")


def __getattr__(name):
    """``kernels.conv2d`` is the current back end's conv2d. Numba is not imported before the first compiled kernel."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_backend_module(get_backend()), name)


__all__ = [
    "FUNCTIONS",
    "also",
    "backend",
    "computed",
    "copy",
    "empty",
    "empty_like",
    "get_backend",
    "get_num_threads",
    "load",
    "nchw",
    "nhwc",
    "reshaped",
    "set_num_threads",
    "to_channels_last",
    "zeros",
    *FUNCTIONS,
]
