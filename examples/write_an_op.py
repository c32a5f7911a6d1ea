"""Write an operation, check its gradient, then break it and see what the check says.

The operation is softplus(x) = ln(1 + eˣ), the smooth ReLU (Dugas et al. 2001). Its derivative is the sigmoid, so

    dx = dy · 1/(1 + e⁻ˣ)

    python examples/write_an_op.py
"""

import numpy as np

import minires as mr
from minires.tensor import Op


class Softplus(Op):
    """y = ln(1 + eˣ). dx = dy/(1 + e⁻ˣ).

    forward gets arrays and keeps on self what backward will need. backward gets ∂L/∂y and returns a tuple with one
    gradient for each input: the derivative of the loss, not of the operation, hence the factor dy.
    """

    def forward(self, x):
        self.x = x
        return np.logaddexp(x, 0)  # ln(eˣ + e⁰), without the overflow

    def backward(self, dy, needs):
        return (dy * self.slope(),)

    def slope(self):
        return np.exp(-np.logaddexp(-self.x, 0))  # 1/(1 + e⁻ˣ), without the overflow


class ForgotDy(Softplus):
    """The mistake made most often: the derivative of the operation, where the chain rule has been forgotten."""

    def backward(self, dy, needs):
        return (self.slope(),)


class WrongBelowZero(Softplus):
    """A mistake that half of all inputs hide: below zero the slope is taken to be 0, as ReLU's is."""

    def slope(self):
        return np.where(self.x > 0, super().slope(), 0)


def main():
    x = np.random.default_rng(0).standard_normal((3, 4))

    y = Softplus().apply(mr.tensor(x, requires_grad=True))
    print(f"softplus of {x[0, 0]:.4f} is {y.data[0, 0]:.4f}; the tape knows where it came from: {y.op.name}\n")

    for op in (Softplus, ForgotDy, WrongBelowZero):
        result = mr.gradcheck(lambda x, op=op: op().apply(x), [x], name=op.__name__, raise_exception=False)
        print(f"{result}\n")  # in a test: `assert result`, or leave raise_exception out and get a GradcheckError


if __name__ == "__main__":
    main()
