"""The tape: a Tensor remembers the operation that made it, and backward() walks the operations in reverse.

This is all of automatic differentiation. An ``Op`` maps arrays to an array and knows how to map the gradient of its
output to the gradients of its inputs (the vector-Jacobian product). ``Op.apply`` records it; ``Tensor.backward`` sums the
gradients over every path. Nothing here knows what a convolution is, and ops never see a Tensor: only the tape does.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import kernels
from .errors import DtypeError, GraphError, ShapeError
from .grad_mode import is_grad_enabled, watcher
from .handle import Handle

if TYPE_CHECKING:
    from .operators import TensorMethods  # arithmetic and methods, which operators.py gives to the class
else:
    TensorMethods = object


class Op:
    """One differentiable operation. ``forward`` keeps on ``self`` what ``backward`` will need.

    forward(*arrays) -> array
    backward(dy, needs) -> a tuple with one gradient per input, or None where ``needs[i]`` is False.
    """

    is_view = False  # does the output share memory with the input?
    aliases = False  # may backward return dy itself or a view of it? Then the tape must not add to it in place
    freed = False
    label: str | None = None  # its name in error messages; by default the class's name in lower case
    takes: ClassVar[tuple[type, ...]] = ()  # the LazyGradients that backward computes itself; others come as arrays
    reads: ClassVar[tuple[tuple[int, ...], ...] | None] = None  # the inputs whose values each gradient needs; None: all
    calls_hooks = False  # does backward run the user's code?
    residual: int | None = None  # of an addition that ends a residual block y = F(x) + x, the input that is F(x)
    inputs: tuple["Tensor", ...]
    needs: tuple[bool, ...]
    versions: tuple[int, ...]  # of the inputs, when forward read them

    def forward(self, *arrays: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def backward(self, dy: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no backward()")

    def read(self, i: int, x: "Tensor") -> Any:
        """What forward gets for the i-th input, the Tensor x."""
        return x.data

    def wrap(self, y: Any) -> "Tensor":
        """The Tensor for what forward returned."""
        return Tensor(y)

    @property
    def name(self) -> str:
        return self.label or type(self).__name__.lower()

    def release(self) -> None:
        """Let go of the inputs and of everything kept for backward."""
        self.__dict__.clear()
        self.freed = True

    def apply(self, *inputs: Any) -> "Tensor":
        """Run ``forward`` on the inputs' arrays; record the operation if a gradient may be asked for."""
        y = self.wrap(self.forward(*[self.read(i, x) for i, x in enumerate(inputs)]))
        watch = watcher()
        if watch is not None:
            watch.forward(self, inputs, y)
        if self.is_view:
            y.changes = inputs[0].changes
        if is_grad_enabled() and any(x.requires_grad for x in inputs):
            self.inputs = inputs
            self.needs = tuple(x.requires_grad for x in inputs)
            self.versions = tuple(x.version for x in inputs)
            y.op, y.requires_grad = self, True
        else:
            self.release()
        return y

    def check_versions(self) -> None:
        """GraphError if an input whose values ``backward`` needs is no longer what ``forward`` read."""
        for i, (x, version) in enumerate(zip(self.inputs, self.versions)):
            if x.version == version:
                continue
            if self.reads is None or any(need and i in read for need, read in zip(self.needs, self.reads)):
                raise GraphError(
                    f"backward: input {i} of {self.name}, of shape {x.shape}, was changed after the forward pass (by an "
                    "optimizer's step(), load_state_dict() or .data =), and its gradient needs the values from before: run "
                    "the forward pass again, or change it after backward()"
                )


class TransientGradient:
    """A gradient in memory that the next recorded step overwrites (``recorded.py``): who looks at ``.grad`` gets a copy."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array


class Tensor(TensorMethods):
    """An n-dimensional array that can be differentiated.

    data: the ndarray, float32 or float64 (integers may be carried, not differentiated). Shape (N, C, H, W) for images,
    stored channels-last. grad: an ndarray of the same shape, or None. op: the operation that made it; None for a leaf.
    version: how often ``.data =``, an optimizer or load_state_dict has changed the values, those of views included; a backward
    pass that needs earlier ones is refused. What NumPy writes into ``data`` in place cannot be seen, and is not counted.

    >>> x = Tensor(np.array([3.0]), requires_grad=True)
    >>> (x * x + x).backward()
    >>> x.grad
    array([7.])
    """

    __slots__ = ("__weakref__", "_array", "_grad", "changes", "hooks", "op", "requires_grad", "retains_grad")
    __array_ufunc__ = None  # ndarray + Tensor asks Tensor.__radd__, not NumPy's broadcasting

    def __init__(self, data: ArrayLike, requires_grad: bool = False) -> None:
        self._array: NDArray[Any] | None = data if isinstance(data, np.ndarray) else np.asarray(data)
        self.changes = [0]  # the version, in a list that views share
        self._grad: NDArray[Any] | TransientGradient | None = None
        self.op: Op | None = None
        self.hooks: dict[object, Callable[..., Any]] | None = None
        self.retains_grad = False
        self.requires_grad = bool(requires_grad)
        if requires_grad:
            self._require_float()

    @property
    def data(self) -> NDArray[Any]:
        assert self._array is not None  # but in a LazyTensor, which has a property of its own
        return self._array

    @data.setter
    def data(self, array: NDArray[Any]) -> None:
        self._array = np.asanyarray(array)  # of 0-d arrays, w - lr·dw is a scalar
        self.count_change()

    @property
    def version(self) -> int:
        return self.changes[0]

    def count_change(self) -> None:
        """For whoever has changed the values in place: a backward pass that needs the earlier ones is refused."""
        self.changes[0] += 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def grad(self) -> NDArray[Any] | None:
        """The gradient, an ndarray, or None. A Tensor that is assigned gives its array."""
        grad = self._grad
        if isinstance(grad, TransientGradient):
            grad = self._grad = kernels.copy(grad.array)
        return grad

    @grad.setter
    def grad(self, grad: "ArrayLike | Tensor | None") -> None:
        grad = grad.data if isinstance(grad, Tensor) else grad
        if grad is None or isinstance(grad, np.ndarray):
            self._grad = grad
            return
        array = np.asarray(grad)
        if array.dtype.kind not in "fiub":
            raise DtypeError(f"grad: takes an array of numbers, a Tensor or None, got {type(grad).__name__}")
        self._grad = array.astype(self.dtype)

    @property
    def grad_to_read(self) -> NDArray[Any] | None:
        """The gradient, for reading it now: another recorded step may overwrite this array."""
        grad = self._grad
        return grad.array if isinstance(grad, TransientGradient) else grad

    @property
    def is_leaf(self) -> bool:
        return self.op is None

    def numpy(self) -> NDArray[Any]:
        """The values, shape ``self.shape``: a view, not a copy."""
        return self.data

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """np.asarray(tensor): the values; a view unless asked otherwise."""
        return np.array(self.data, dtype=dtype, copy=copy)

    def detach(self) -> "Tensor":
        """The same values, sharing memory, cut from the graph."""
        detached = Tensor(self.data)
        detached.changes = self.changes
        return detached

    def _require_float(self) -> None:
        if self.dtype not in (np.float32, np.float64):
            raise DtypeError(f"only float32 and float64 tensors can require a gradient, not {self.dtype}")

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradients on or off for a leaf; returns self."""
        if self.op is not None and not requires_grad:
            raise GraphError("only a leaf can stop requiring a gradient; use detach() for the output of an operation")
        if requires_grad:
            self._require_float()
        self.requires_grad = bool(requires_grad)
        return self

    def retain_grad(self) -> None:
        """Keep ``.grad`` of this inner tensor too, not only of leaves."""
        if not self.requires_grad:
            raise GraphError("retain_grad: this tensor does not require a gradient")
        self.retains_grad = True

    def register_hook(self, hook: Callable[[NDArray[Any]], Any]) -> Handle:
        """Call ``hook(grad)`` when the whole gradient of this tensor (an ndarray) is known; what it returns, if anything,
        replaces it. Returns a handle: ``handle.remove()``."""
        if not self.requires_grad:
            raise GraphError("register_hook: this tensor does not require a gradient")
        if self.hooks is None:
            self.hooks = {}
        return Handle(self.hooks, hook)

    def backward(self, grad: "ArrayLike | Tensor | None" = None, retain_graph: bool = False) -> None:
        """Accumulate d(self)/d(leaf) · grad into ``.grad`` of every leaf that requires it.

        grad: ndarray (or Tensor) of this shape; may be left out for a single element, where it is 1.
        retain_graph: keep what the operations saved, so that backward() can run again.
        Raises GraphError when there is no graph, or when an earlier backward() freed it.
        """
        if not self.requires_grad:
            raise GraphError("backward: this tensor does not require a gradient (was it made under no_grad()?)")
        backward([self], [self._seed(grad)], retain_graph)

    def _seed(self, grad: Any) -> NDArray[Any]:
        """grad as an array of this tensor's shape and dtype, or an error; ones for None."""
        if grad is None:
            if self.data.size != 1:
                raise GraphError(
                    f"backward: a gradient can be left out only for a single element, and this shape is {self.shape}; "
                    "reduce it first (.sum(), .mean()) or pass backward(grad)"
                )
            return np.ones_like(self.data)
        grad = grad.data if isinstance(grad, Tensor) else grad
        grad = grad if isinstance(grad, np.ndarray) else np.asarray(grad, dtype=self.dtype)
        if grad.shape != self.shape:
            raise ShapeError(f"backward: gradient of shape {grad.shape} for a tensor of shape {self.shape}")
        if grad.dtype != self.dtype:
            raise DtypeError(f"backward: gradient of dtype {grad.dtype} for a tensor of dtype {self.dtype}")
        return grad

    def __repr__(self) -> str:
        made_by = f", op={self.op.name}" if self.op else (", requires_grad=True" if self.requires_grad else "")
        return f"tensor({np.array2string(self.data, prefix='tensor(', precision=4)}, dtype={self.dtype}{made_by})"


def backward(outputs: Sequence[Tensor], grads: Sequence[NDArray[Any]], retain_graph: bool = False) -> None:
    """Walk the graph above ``outputs`` once, in reverse topological order, starting with ``grads`` (ndarrays)."""
    order = topological_order(outputs)
    watch = watcher()
    totals: dict[int, tuple[Any, bool]] = {}  # id(x) -> (its gradient so far, does the tape own the array?)
    for y, dy in zip(outputs, grads):
        _add(totals, y, dy, owned=False)
    while order:  # popping lets go of each tensor as the walk passes it
        y = order.pop()  # every consumer of y has been walked: its gradient is complete
        if id(y) not in totals:
            continue
        dy, owned = totals.pop(id(y))
        op = y.op
        if y.hooks or (op is not None and op.calls_hooks):
            _compute_all(totals)
        if y.hooks or y.retains_grad or op is None or not isinstance(dy, op.takes):
            dy = _array(dy)
        if y.hooks:
            dy, owned = _call_hooks(y, dy if owned else dy.copy(order="K")), False  # a hook may keep what it is given
        if op is None or y.retains_grad:
            _accumulate(y, dy, owned and op is None)
        if op is None:
            continue
        op.check_versions()
        gradients = _checked(op, op.backward(dy, op.needs))
        if watch is not None:
            gradients = tuple(None if dx is None else _array(dx) for dx in gradients)
            watch.backward(op, _array(dy), gradients)
        for x, dx in zip(op.inputs, gradients):
            if dx is not None and x.requires_grad:
                _add(totals, x, dx, owned=not op.aliases)
        if not retain_graph:
            op.release()


def _checked(op, gradients):
    """What ``op.backward`` returned: a gradient for each input, of its shape."""
    if not isinstance(gradients, tuple | list) or len(gradients) < len(op.inputs):
        raise GraphError(f"{op.name}: backward returns a tuple with a gradient, or None, for each of its inputs")
    for x, dx in zip(op.inputs, gradients):
        if isinstance(dx, np.ndarray | np.generic) and dx.shape != x.shape:
            raise ShapeError(
                f"{op.name}: backward returns a gradient of shape {dx.shape} for an input of shape {x.shape}"
            )
    return gradients


def _call_hooks(y, dy):
    """What the hooks of y make of its gradient dy."""
    for hook in list(y.hooks.values()):
        replaced = hook(dy)
        if replaced is not None:
            replaced = replaced.data if isinstance(replaced, Tensor) else np.asarray(replaced)
            dy = y._seed(replaced.astype(y.dtype, copy=False))  # of y's shape, or an error
    return dy


class LazyGradient:
    """A gradient that is not computed yet. An op that ``takes`` its kind computes it together with its own gradients;
    everybody else (another op, a hook, a leaf) gets ``array()``."""

    def array(self) -> NDArray[Any]:
        raise NotImplementedError

    def plus(self, other: NDArray[Any]) -> "NDArray[Any] | LazyGradient":
        """The sum with an array: a new array, or a LazyGradient that will add it."""
        return kernels.add(self.array(), other)


def _array(gradient):
    return gradient.array() if isinstance(gradient, LazyGradient) else gradient


def _compute_all(totals):
    """Compute every lazy gradient: the user's code is about to run, and may change the arrays that they follow from."""
    for key, (gradient, owned) in totals.items():
        totals[key] = _array(gradient), owned


def topological_order(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that require a gradient, inputs before outputs. Iterative: a ResNet-1202 is deeper than the stack."""
    order, seen, stack = [], set(), [(y, False) for y in outputs]
    while stack:
        y, expanded = stack.pop()
        if expanded:
            order.append(y)
            continue
        if id(y) in seen or not y.requires_grad:
            continue
        seen.add(id(y))
        stack.append((y, True))
        if y.op is not None:
            if y.op.freed:
                raise GraphError(
                    "backward: this graph was already walked, and what its operations had saved was freed. "
                    "Run the forward pass again, or call the first backward with retain_graph=True"
                )
            stack.extend((x, False) for x in y.op.inputs)
    return order


def _add(totals, x, dx, owned):
    """Fan-out sums gradients: ∂L/∂x = Σ over the uses of x. In place only into an array that the tape itself made."""
    if isinstance(dx, np.generic):  # what NumPy computes from 0-d arrays
        dx = np.asarray(dx)
    if id(x) not in totals:
        totals[id(x)] = dx, owned
        return
    so_far, own = totals[id(x)]
    if isinstance(dx, LazyGradient):
        total, own = dx.plus(_array(so_far)), True
    elif isinstance(so_far, LazyGradient):
        total, own = so_far.plus(dx), True
    else:
        total, own = kernels.add(so_far, dx, out=so_far if own else None), True
    totals[id(x)] = total, own


def _accumulate(x, dx, owned):
    """Add to ``x.grad``. The array kept there is nobody else's: what an op may have shared is copied."""
    if x.grad is not None:
        x.grad = x.grad + dx
    else:
        x.grad = dx if owned else kernels.copy(dx)
