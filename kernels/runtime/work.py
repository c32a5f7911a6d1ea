"""On how many threads a kernel runs, by the size of its work, and into how many shares that is divided."""

import numpy as np

SHARES = 4  # of a kernel's work for each thread, at most; more would keep fewer neighbours together
LEAST = 10_000  # nanoseconds of work for each thread, at least; handing it out takes 3000 to 5000, ten times that if they park
LEAST_SHARE = 20_000  # nanoseconds of work in a share, if a thread has several; each share costs about 1000
USUAL = 0.05  # nanoseconds of one thread a byte of the largest array, of kernels that are not in the table

# The same by kernels' names, printed by ``python -m benchmarks.work_table``: the median over the sizes in training steps. Of
# convolutions and their weight gradients, nanoseconds a multiply-add of the direct algorithm.
NANOSECONDS = {
    "_add": 0.1,
    "_add_relu": 0.12,
    "_avg_pool": 0.1,
    "_avg_pool_grad": 0.18,
    "_blocks": 0.27,
    "_convolve": 0.021,
    "_filters": 0.14,
    "_finish": 0.039,
    "_input_grad": 0.1,
    "_join": 0.064,
    "_matmul": 0.048,
    "_max_pool": 0.12,
    "_max_pool_grad": 0.079,
    "_normalise": 0.08,
    "_part": 0.058,
    "_partial_grads": 0.13,
    "_partial_moments": 0.06,
    "_pointwise": 0.17,
    "_relu": 0.06,
    "_relu_grad": 0.073,
    "_resize": 0.1,
    "_resize_grad": 0.26,
    "_sgd": 0.15,
    "_spread": 0.42,
    "_subsample": 0.086,
    "_subsample_grad": 0.041,
    "_sum": 0.05,
    "_weight_grad": 0.019,
}


def divide(name, amount, most):
    """(threads, shares): as many threads, ``most`` at most, as get LEAST of work each, and the shares of all of them.

    amount: what the table's rate is for, the bytes of the kernel's largest array or its multiply-adds.
    """
    nanoseconds = amount * NANOSECONDS.get(name, USUAL)
    threads = max(1, min(most, int(nanoseconds / LEAST)))
    each = max(1, min(SHARES, int(nanoseconds / threads / LEAST_SHARE)))
    return threads, threads * each if threads > 1 else 1


def largest(args):
    """The bytes of the largest array among a kernel's arguments."""
    return max((a.nbytes for a in args if type(a) is np.ndarray), default=0)
