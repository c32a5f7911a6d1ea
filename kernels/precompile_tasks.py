"""The program of a precompiling process: ``python -P -m minires.kernels.precompile_tasks FOLDER TASK …``.

Each task calls kernels on small arrays, which compiles them into the cache folder. ``runtime/precompile.py`` starts the
processes and assigns the tasks; it does not import this module, which imports every kernel.
"""

import gc
import os
import signal
import sys
import threading

import numpy as np

from .compiled import backend
from .convolution import direct, direct_weight, norm_terms, winograd, winograd_weight
from .convolution.winograd_table import GAINS
from .convolution.work_items import problem_of
from .descriptors import STORE, Operand
from .runtime import jit, workers
from .runtime.target import KIND


def _arrays():
    """x and dy (N, H, W, C) and w (KH, KW, I, O) of a 3×3 convolution, and its Problem."""
    rng = np.random.default_rng(0)
    x, dy, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 8, 8, 16), (2, 8, 8, 16), (3, 3, 16, 16)))
    return x, dy, w, problem_of(x.shape, w.shape, (1, 1), (1, 1), (1, 1), 1)


def _forward_and_input_grad(algorithm):
    x, dy, w, problem = _arrays()
    algorithm.convolve(problem, Operand(x), w, STORE)
    algorithm.convolve_input_grad(problem, Operand(dy), w, STORE)


def _weight_grad(algorithm):
    x, dy, _, problem = _arrays()
    algorithm.convolve_weight_grad(problem, Operand(x), Operand(dy))


def _elementwise():
    """Batch norm, ReLU, additions and the update."""
    x, *_ = _arrays()
    weight, mean, large = np.ones(16, np.float32), np.zeros(16), np.zeros((3, 3, 64, 64), np.float32)
    backend.pointwise(Operand(x), STORE)
    backend.add(large, large)
    moments = norm_terms.join_moments(np.ones((1, 2, 16)), np.ones(1))
    terms = norm_terms.norm_forward_terms(*moments, 1e-5, weight, weight)
    norm_terms.join_sums(np.ones((1, 2, 16)))
    norm_terms.norm_backward_terms(np.ones((2, 16)), mean, terms, weight, 1)
    backend.update_running_stats(weight, weight.copy(), np.zeros((), np.int64), 0.1, mean, np.ones(16), 2)
    backend.norm_fixed_terms(weight, weight, 1e-5, weight, weight)
    backend.not_finite([large])
    backend.sgd_step([large], [large.copy()], [large.copy()], 0.1, 0.9, 1e-4, False)
    workers.compile_loops()


def _classifier():
    features, weights = np.ones((2, 16), np.float32), np.ones((16, 10), np.float32)
    logits = backend.matmul(features, weights)
    backend.matmul(features.T, logits)


def _rest():
    """The shortcut without parameters, pooling and the loss."""
    x, *_ = _arrays()
    backend.zero_pad_shortcut_grad(backend.zero_pad_shortcut(x, 2, 8, 8), x.shape, 2, 8)
    y = backend.avg_pool2d(x, (8, 8), (8, 8), (0, 0), True)
    backend.avg_pool2d_grad(y, x.shape, (8, 8), (8, 8), (0, 0), True)
    losses, p = backend.cross_entropy(y.reshape(2, 16), np.zeros(2, np.int64), 0.0)
    backend.cross_entropy_grad(p, np.zeros(2, np.int64), 0.0, losses)


TASKS = {
    "direct": lambda: _forward_and_input_grad(direct),
    "direct_weight": lambda: _weight_grad(direct_weight),
    "winograd": lambda: _forward_and_input_grad(winograd),
    "winograd_weight": lambda: _weight_grad(winograd_weight),
    "elementwise": _elementwise,
    "classifier": _classifier,
    "rest": _rest,
}


def main(folder, *names):
    """Run the named tasks. Returns 3 if this process would not compile the same kernels as its parent."""
    if str(jit.FOLDERS.folder) != folder:
        return 3
    jit.compiles.announce = False
    gc.disable()  # a compiler makes many objects that live on: looking through them took a twentieth of the time (measured)
    for name in names:
        if KIND in GAINS or not name.startswith("winograd"):  # other targets do not use that algorithm
            TASKS[name]()
    return 0


def _end_with_parent():
    """End this process when its standard input ends: the process that started it is gone, or does not need it any more."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides what it means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main(*sys.argv[1:]))
