"""Recorded training steps and predictions: the kernels of a fixed network, run again without the Python between them.

A step of a small network spends a tenth of its time in Python, and at batch 1 more than half. The kernels that it launches are
the same every time, with the same sizes and on arrays that could be the same. So the second step with inputs of one shape is
recorded (``kernels/runtime/recording.py``), the third is computed both ways, and if every bit is the same, later ones run the
recording. Whatever a recording cannot stand for is computed as if there were none: another shape, a hook, a watcher, a module
that is not the library's or has been changed, dropout. The results are the same bits in any case.

On GPUs this is done with CUDA graphs ("Accelerating PyTorch with CUDA Graphs", Nguyen et al. 2021).
"""

from __future__ import annotations

import gc
import hashlib
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import functional as F
from . import kernels
from .errors import DtypeError
from .grad_mode import is_grad_enabled, no_grad
from .handle import structure
from .kernels.checks import labels_in
from .kernels.memory_format import nchw
from .kernels.runtime.memory_pool import pool, using
from .kernels.runtime.recording import Recording, record
from .kernels.switches import Switch, uses_winograd
from .lazy import is_fusing
from .nn import Module
from .nn.losses import main_logits, with_auxiliary
from .tensor import Tensor, TransientGradient

Arrays = list[NDArray[Any]]


class recording(Switch):
    """``with recording(False):`` computes every step and prediction without a recording. A context manager and a decorator.

    >>> with recording(False):
    ...     recording.is_on()
    False
    """


class _Recorded:
    """What recorded steps and predictions share: when to record, to check, to run the recording.

    state: "waiting" for two inputs of one shape in a row, "recorded", "checked" (and in use), or "refused", with ``reason``.
    """

    frozen = False

    def __init__(self, model: Module) -> None:
        self.model = model
        self.state, self.reason = "waiting", ""
        self._lock = threading.Lock()
        self._key: Any = None  # what the last inputs were like
        self._version = -1  # of ``structure``, when the model was last looked at
        self._signature: Any = None  # of the model, then
        self._parameters: list[Any] = []
        self._recording: Recording | None = None
        self._inputs: Arrays = []
        self._outputs: Arrays = []

    def compute(self, *inputs: NDArray[Any]) -> Arrays:
        """The outputs, with nothing recorded. Output arrays may be in use by nobody else."""
        raise NotImplementedError

    def settings(self) -> tuple[Any, ...]:
        """What else the outputs depend on: the further arguments of the constructor."""
        return ()

    def __reduce__(self) -> Any:  # a copy records for itself
        return type(self), (self.model, *self.settings())

    def _run(self, *inputs: NDArray[Any]) -> Arrays:
        """The outputs for these inputs, arrays that nobody but the caller will change."""
        if not self._lock.acquire(blocking=False):  # another thread is using the recording
            return self.compute(*inputs)
        try:
            return self._choose(inputs)
        finally:
            self._lock.release()

    def _choose(self, inputs: tuple[NDArray[Any], ...]) -> Arrays:
        changed = self._look_at_model()
        if changed:
            self._key = None  # even if nothing is recorded now: what is recorded is of the model as it was
        if self.state == "refused" or self._signature is None or not self._possible():
            return self.compute(*inputs)
        arrays = [(p._array, p.requires_grad) for p in self._parameters]
        shapes = [(a.shape, a.dtype) for a in inputs]
        key = shapes, kernels.get_num_threads(), uses_winograd(), self.settings(), arrays
        same, self._key = not changed and _same(key, self._key), key
        if not same:
            self._forget("waiting")
            return self.compute(*inputs)
        if self._recording is None:
            return self._record(inputs)
        if self.state == "recorded":
            return self._check(self._recording, inputs)
        self._check_inputs(inputs)
        self._set(inputs)
        self._recording.replay()
        return self._results()

    def _check_inputs(self, inputs: tuple[NDArray[Any], ...]) -> None:
        """Raise what ``compute`` raises for inputs whose values are wrong: a recording does not look."""

    def _possible(self) -> bool:
        """Whether a recording can stand for what this thread asks for."""
        return recording.is_on() and is_fusing()

    def _look_at_model(self) -> bool:
        """Whether the model has changed in a way that changes its kernels, or may have, since the last time."""
        if self._version == structure.version:
            return False
        version, now = structure.version, signature(self.model)
        changed = now != self._signature
        if not changed and self._recording is not None:
            self._recording.prepare()  # the values of buffers may have changed
        self._version, self._signature, self._parameters = version, now, list(self.model.parameters())
        return changed

    # --- the recording

    def _record(self, inputs: tuple[NDArray[Any], ...]) -> Arrays:
        self._release()
        pool.clear()  # so that the memory of steps that were not recorded does not stay beside that of the recording
        recording = Recording(self.frozen)
        self._inputs = [_place_for(a) for a in inputs]
        self._set(inputs)
        with record(recording):
            outputs = self.compute(*self._inputs)
        self._note()
        self._outputs = [recording.alias(a) for a in outputs]
        del outputs
        self._release()
        if not recording.is_closed:
            gc.collect()
        results = self._results()
        if recording.is_closed:
            recording.finish()
            self._recording, self.state = recording, "recorded"
        else:
            self._forget("refused", "something keeps an array of a recorded computation")
        return results

    def _check(self, recording: Recording, inputs: tuple[NDArray[Any], ...]) -> Arrays:
        """Compute both ways, and return what the recording gives if every bit is the same.

        Inputs that are those of the last time would not tell a recording that holds their values: then others are tried first.
        """
        buffers = list(self.model.buffers())
        before = [b.copy() for b in buffers]
        tried = [self._others(inputs), inputs] if any(map(np.array_equal, self._inputs, inputs)) else [inputs]
        try:
            for each in tried:
                self._set(each)
                _copy_to(buffers, before)
                expected = self._digests_of_plain(recording, buffers)
                _copy_to(buffers, before)
                recording.replay()
                if _digests([*self._outputs, *buffers]) != expected:
                    break
            else:
                self.state = "checked"
                return self._results()
        except BaseException:  # KeyboardInterrupt too: the running statistics would have moved twice
            _copy_to(buffers, before)
            raise
        self._forget("refused", "the recorded computation and the plain one differ")
        _copy_to(buffers, before)
        return self.compute(*inputs)

    def _digests_of_plain(self, recording: Recording, buffers: Arrays) -> list[bytes]:
        """The digests of outputs and buffers when nothing is recorded."""
        # The recording's pool is free between two runs. It has no room for what a frozen recording has prepared elsewhere.
        with nullcontext() if recording.frozen else using(recording.pool):
            outputs = self.compute(*self._inputs)
            found = _digests([*outputs, *buffers])
        del outputs
        self._release()
        pool.clear()
        return found

    def _forget(self, state: str, reason: str = "") -> None:
        """Let go of the recording and of its memory."""
        self.state, self.reason, self._recording = state, reason, None
        self._inputs, self._outputs = [], []

    def _set(self, inputs: tuple[NDArray[Any], ...]) -> None:
        for place, array in zip(self._inputs, inputs):
            np.copyto(place, array)

    def _results(self) -> Arrays:
        """What the recording has computed, for the caller to keep."""
        return [kernels.copy(a) for a in self._outputs]

    def _others(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Inputs like these, each with other values."""
        return tuple(a + np.random.default_rng(0).standard_normal(a.shape).astype(a.dtype) for a in inputs)

    def _note(self) -> None:
        """Remember what ``_results`` needs to know of the computation that is being recorded."""

    def _release(self) -> None:
        """Let go of what ``compute`` left in the model."""


class RecordedPrediction(_Recorded):
    """The outputs of a network in evaluation mode, as ``with no_grad(): model(x)`` gives them, from a recording where possible.

    What follows from the weights alone, such as packing them, is computed once, and again when an optimizer, ``.data =`` or
    load_state_dict has changed them; the first time, every bit is compared once more, since a module of one's own may compute
    its weights anew in each call. What NumPy writes into their arrays in place cannot be seen: call ``refresh()`` after it.

        predict = minires.RecordedPrediction(model.eval())
        logits = predict(images)

    images: ndarray or Tensor (N, C, H, W), float32 or float64 as the weights are. The output is a Tensor of that dtype, the
    caller's own, or of a backbone a list of them. In training mode nothing is recorded, and an auxiliary classifier's logits
    are left out. Several threads may call it: one at a time runs the recording, others the model.
    """

    frozen = True

    def __init__(self, model: Module) -> None:
        super().__init__(model)
        self._versions: list[int] | None = None  # of the parameters, when what follows from them was computed
        self._has_followed = False  # has the recording been compared after the weights had changed?
        self._is_list = False  # does the model return a list?

    def __call__(self, images: NDArray[Any] | Tensor) -> Any:
        """The model's output for images (N, C, H, W), with the errors that the model raises."""
        array = images.data if isinstance(images, Tensor) else np.asarray(images)
        found = [Tensor(a) for a in self._run(array)]
        return found if self._is_list else found[0]

    def refresh(self) -> None:
        """Have what follows from the weights computed anew in the next call."""
        self._versions = None

    def compute(self, *inputs: NDArray[Any]) -> Arrays:
        with no_grad():
            output = main_logits(self.model(Tensor(inputs[0])))
        self._is_list = isinstance(output, list | tuple)
        outputs = list(output) if self._is_list else [output]
        if not outputs or not all(isinstance(y, Tensor) for y in outputs):
            raise DtypeError(
                f"RecordedPrediction: a model returns a Tensor or a list of them, not {type(output).__name__}"
            )
        return [y.data for y in outputs]

    def _possible(self) -> bool:
        versions = [p.version for p in self._parameters]
        if versions != self._versions:
            if self._recording is not None:
                self._recording.prepare()
            self._versions = versions
            if self.state == "checked" and not self._has_followed:
                self.state, self._has_followed = "recorded", True
        return super()._possible() and not self.model.training

    def _forget(self, state: str, reason: str = "") -> None:
        super()._forget(state, reason)
        self._has_followed = False


class RecordedStep(_Recorded):
    """Forward and backward pass of a classifier with softmax cross-entropy, from a recording where possible.

        step = minires.RecordedStep(model)
        loss, logits = step(images, labels)       # in place of model(), cross_entropy(), zero_grad() and backward()
        optimizer.step()

    images: ndarray (N, C, H, W), float32 or float64 as the weights are; labels: ndarray (N,) of integers. label_smoothing: ε
    of Szegedy et al. 2015, section 7. Sets the gradients of the model's parameters, in place of what was there; they are
    copied when somebody looks at ``.grad``. Returns the mean loss, a 0-d array, and the logits (N, K), in the weights' dtype
    and the caller's own. Of a network with an auxiliary classifier the gradients are those of ``nn.classification_loss``, loss
    and logits those of the network itself. Raises what the model and ``cross_entropy`` raise: ShapeError, DtypeError, and
    DataError for labels out of range.
    """

    def __init__(self, model: Module, label_smoothing: float = 0.0) -> None:
        super().__init__(model)
        self.label_smoothing = label_smoothing
        self._trained: list[Any] = []  # the parameters that got a gradient
        self._owners: list[Any] = []  # those of the recording

    def __call__(self, images: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(loss, logits); see the class."""
        labels = np.asarray(labels)
        losses, logits, *_ = self._run(np.asarray(images), labels)
        return F.mean(Tensor(losses)).data, logits

    def settings(self) -> tuple[Any, ...]:
        return (self.label_smoothing,)

    def compute(self, *inputs: NDArray[Any]) -> Arrays:
        images, labels = inputs
        self._release()
        output = self.model(Tensor(images))
        logits = main_logits(output)
        losses = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        with_auxiliary(losses.mean(), output, labels, self.label_smoothing).backward()
        self._trained = [p for p in self.model.parameters() if p.grad is not None]
        return [losses.data, logits.data, *[p.grad for p in self._trained]]

    def _possible(self) -> bool:
        return super()._possible() and is_grad_enabled()

    def _others(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        images, labels = inputs
        return *super()._others((images,)), (labels + 1) % self._outputs[1].shape[1]

    def _check_inputs(self, inputs: tuple[NDArray[Any], ...]) -> None:
        labels_in("cross_entropy", inputs[1], self._outputs[1].shape[1])

    def _results(self) -> Arrays:
        """Losses and logits. Gradients are copied when somebody looks at them."""
        self._release()
        for p, gradient in zip(self._owners, self._outputs[2:], strict=True):
            p._grad = TransientGradient(gradient)
        return [kernels.copy(a) for a in self._outputs[:2]]

    def _note(self) -> None:
        self._owners = self._trained

    def _release(self) -> None:
        self.model.zero_grad()


def signature(model: Module) -> Any:
    """What decides which kernels a model launches, to be compared; None where a recording cannot stand for the model."""
    found: list[Any] = []
    for module in model.modules():
        if not recordable(module) or any(p.hooks for _, p in module._own_parameters()):
            return None
        settings = [(name, _identity(value)) for name, value in vars(module).items()]
        found.append((id(module), type(module), type(module).forward, module.training, settings))
    return found


def recordable(module: Module) -> bool:
    """Whether a module's class says that each call launches the same kernels (``recordable = True``), and nobody listens.

    A class says so for itself and its own forward(): for others that inherit from it, it may not be true.
    """
    kind = type(module)
    owner = next((c for c in kind.__mro__ if "forward" in vars(c)), Module)
    if kind is not owner and "recordable" not in vars(kind) and not kind.__module__.startswith(f"{__package__}."):
        return False
    return (
        "recordable" in vars(owner)
        and bool(module.recordable)
        and not module.is_hooked
        and "forward" not in vars(module)
    )


def _identity(value: Any) -> Any:
    """A setting's value, or which object it is."""
    if isinstance(value, Tensor):
        return id(value)
    if isinstance(value, list | tuple):
        return tuple(map(_identity, value))
    return value if isinstance(value, bool | int | float | str | type(None)) else id(value)


def _same(key: Any, other: Any) -> bool:
    """Whether two keys are the same; of arrays, whether they are the same objects."""
    if other is None or key[:-1] != other[:-1] or len(key[-1]) != len(other[-1]):
        return False
    return all(a is b and needs == needed for (a, needs), (b, needed) in zip(key[-1], other[-1]))


def _digests(arrays: Arrays) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(a).data).digest() for a in arrays]


def _copy_to(arrays: Arrays, values: Arrays) -> None:
    for array, value in zip(arrays, values):
        array[...] = value


def _place_for(array: NDArray[Any]) -> NDArray[Any]:
    """An array for inputs like this one: images channels-last, as convolutions read them, and labels int64."""
    if array.ndim == 4:
        N, C, H, W = array.shape
        return nchw(np.empty((N, H, W, C), array.dtype))
    return np.empty(array.shape, np.int64 if array.dtype.kind in "iu" else array.dtype)
