"""minires: residual networks from scratch in NumPy, with Numba kernels, for learning and for training on a laptop CPU."""

import typing as _typing
from importlib import import_module as _import_module
from pathlib import Path as _Path

_checkout = _Path(__file__).resolve().parent.parent
if (_checkout / "setup.cfg").exists() and (_checkout / "kernels" / "__init__.py").exists():
    # In a checkout minires/ shadows an installed minires, and kernels/ stands beside it, not in it.
    __path__.append(str(_checkout))

from . import errors, functional, operators, random
from .anomaly import detect_anomaly
from .creation import from_numpy, tensor
from .errors import MiniresError
from .grad_mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .kernels import backend, get_num_threads, set_num_threads
from .kernels.switches import winograd
from .lazy import fusion
from .random import manual_seed
from .tensor import Tensor
from .version import __version__ as __version__

from . import data, models, nn, optim  # isort: skip
from .gradcheck import gradcheck, gradcheck_model  # isort: skip
from .recorded import RecordedPrediction, RecordedStep, recording  # isort: skip

if _typing.TYPE_CHECKING:
    from . import interop, lab, training
else:

    def __getattr__(name):
        """``minires.interop``, ``minires.lab`` and ``minires.training``, which are imported when they are first asked for."""
        if name in ("interop", "lab", "training"):
            return _import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MiniresError",
    "RecordedPrediction",
    "RecordedStep",
    "Tensor",
    "backend",
    "data",
    "detect_anomaly",
    "enable_grad",
    "errors",
    "from_numpy",
    "functional",
    "fusion",
    "get_num_threads",
    "gradcheck",
    "gradcheck_model",
    "interop",
    "is_grad_enabled",
    "lab",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "operators",
    "optim",
    "random",
    "recording",
    "set_grad_enabled",
    "set_num_threads",
    "tensor",
    "training",
    "winograd",
]
