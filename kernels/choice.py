"""Which algorithm computes a convolution: Winograd's where the committed table says that it is faster, else the direct one.

The choice depends on the target, the shapes and a switch, never on a measurement: the bits of a run can be had again.
"""

from functools import lru_cache

from . import conv, conv_weight, winograd_weight
from . import winograd as winograd_conv
from .switch import uses_winograd
from .winograd_plan import faster


def _choose(direct, other, use, x_shape, w_shape, convolution):
    return other if uses_winograd() and _faster(use, x_shape, w_shape, *convolution) else direct


@lru_cache(maxsize=1024)
def _faster(use, x_shape, w_shape, *convolution):
    return faster(conv.geometry(x_shape, w_shape, *convolution), use)


# --- for fused operations: operands in, epilogues done


def convolve(operand, w, convolution, epilogue):
    """y = x ∗ w: ``conv.convolve``."""
    chosen = _choose(conv, winograd_conv, "forward", operand.array.shape, w.shape, convolution)
    return chosen.convolve(operand, w, convolution, epilogue)


def convolve_input_grad(operand, w, x_shape, convolution, epilogue):
    """dx of y = x ∗ w: ``conv.convolve_input_grad``."""
    chosen = _choose(conv, winograd_conv, "input_grad", x_shape, w.shape, convolution)
    return chosen.convolve_input_grad(operand, w, x_shape, convolution, epilogue)


def convolve_weight_grad(operand, gradient, w_shape, convolution):
    """dw of y = x ∗ w: ``conv_weight.convolve_weight_grad``."""
    chosen = _choose(conv_weight, winograd_weight, "weight_grad", operand.array.shape, w_shape, convolution)
    return chosen.convolve_weight_grad(operand, gradient, w_shape, convolution)


# --- the back end's functions


def conv2d(x, w, stride, padding, dilation, groups):
    """y = x ∗ w: ``conv.conv2d``."""
    convolution = stride, padding, dilation, groups
    return _choose(conv, winograd_conv, "forward", x.shape, w.shape, convolution).conv2d(x, w, *convolution)


def conv2d_input_grad(dy, w, x_shape, stride, padding, dilation, groups):
    """dx of y = x ∗ w: ``conv.conv2d_input_grad``."""
    x_shape, convolution = tuple(x_shape), (stride, padding, dilation, groups)
    chosen = _choose(conv, winograd_conv, "input_grad", x_shape, w.shape, convolution)
    return chosen.conv2d_input_grad(dy, w, x_shape, *convolution)


def conv2d_weight_grad(x, dy, w_shape, stride, padding, dilation, groups):
    """dw of y = x ∗ w: ``conv_weight.conv2d_weight_grad``."""
    w_shape, convolution = tuple(w_shape), (stride, padding, dilation, groups)
    chosen = _choose(conv_weight, winograd_weight, "weight_grad", x.shape, w_shape, convolution)
    return chosen.conv2d_weight_grad(x, dy, w_shape, *convolution)
