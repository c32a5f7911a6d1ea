"""On how many threads a kernel runs, by the size of its work, and into how many shares that is divided."""

import numpy as np

SHARES = 4  # of a kernel's work for each thread; more would keep fewer neighbours together
LEAST = 10_000  # nanoseconds of work that a further thread is worth: handing it out takes 2 to 5 of them, waking a thread 50
USUAL = 0.05  # nanoseconds of one thread a byte of the largest array, of kernels that are not in the table

# The same by kernels' names, printed by ``python -m benchmarks.work_table``: the least of a training step's launches.
NANOSECONDS = {
    "_add": 0.085,
    "_add_relu": 0.075,
    "_avg_pool": 0.092,
    "_avg_pool_grad": 0.16,
    "_convolve": 0.44,
    "_filters": 0.14,
    "_finish": 0.038,
    "_input_grad": 0.093,
    "_matmul": 0.056,
    "_max_pool": 0.13,
    "_max_pool_grad": 0.073,
    "_normalise": 0.073,
    "_partial_grads": 0.11,
    "_partial_moments": 0.08,
    "_pointwise": 0.15,
    "_relu": 0.044,
    "_relu_grad": 0.068,
    "_sgd": 0.13,
    "_subsample": 0.08,
    "_subsample_grad": 0.044,
    "_sum": 0.042,
    "_weight_grad": 0.27,
}


def threads_for(name, nbytes, most):
    """The number of threads, ``most`` at most, that get LEAST of work each. nbytes: of the kernel's largest array."""
    return max(1, min(most, int(nbytes * NANOSECONDS.get(name, USUAL) / LEAST)))


def largest(args):
    """The bytes of the largest array among a kernel's arguments."""
    return max((a.nbytes for a in args if type(a) is np.ndarray), default=0)
