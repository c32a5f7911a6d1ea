"""Measures the table of ``kernels/runtime/work.py``: nanoseconds of one thread a byte or, of convolutions, a multiply-add.

``python -m benchmarks.work_table`` runs training steps of a few networks on one thread, fused and operation by operation, times
every launch, and prints for each kernel the median over the sizes that occur.
"""

import sys
import time
from collections import defaultdict

import numpy as np

import minires as mr
from minires.kernels.runtime import work

F = mr.functional
REPEATS = 5
CASES = [  # images, side
    ("resnet20", 32, 32),
    ("preresnet20", 32, 32),
    ("resnet18", 2, 96),
    ("resnet50", 2, 96),
    ("resnext50_32x4d", 2, 96),
    ("densenet_bc100_12", 8, 32),
]
SMALLEST = 1 << 16  # bytes of the largest array; below, a launch is mostly its fixed cost


def time_launches(times):
    """From now on times[kernel's name, bytes] gets the seconds of every launch."""

    def timed(kernel, *args, work=None):
        began = time.perf_counter()
        kernel(0, 1, 0, *args)
        times[kernel.__name__, largest(args) if work is None else work].append(time.perf_counter() - began)

    largest = work.largest
    for name, module in list(sys.modules.items()):
        if name.startswith("minires.kernels.") and hasattr(module, "launch"):
            module.launch = timed


def steps(name, images, side):
    """REPEATS training steps."""
    rng = np.random.default_rng(0)
    model = mr.models.create(name)
    optimizer = mr.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x = mr.tensor(rng.standard_normal((images, 3, side, side)).astype(np.float32))
    for _ in range(REPEATS):
        optimizer.zero_grad()
        F.cross_entropy(model(x), rng.integers(0, 10, images)).backward()
        optimizer.step()


def resizing(images, channels, side):
    """REPEATS times what feature maps of a segmentation network are enlarged by, and the gradient of it."""
    x = np.random.default_rng(0).standard_normal((images, channels, side, side)).astype(np.float32)
    for mode in ("nearest", "bilinear"):
        for _ in range(REPEATS):
            F.interpolate(mr.tensor(x, requires_grad=True), scale_factor=2.0, mode=mode).sum().backward()


def everything():
    for case in CASES:
        steps(*case)
    for side in (32, 64):
        resizing(4, 64, side)
    with mr.fusion(False):
        steps(*CASES[0])


def main():
    mr.set_num_threads(1)
    everything()  # compiles the kernels
    times = defaultdict(list)
    time_launches(times)
    everything()
    rates = defaultdict(list)
    for (kernel, nbytes), seconds in times.items():
        if nbytes >= SMALLEST:
            rates[kernel].append(float(np.median(seconds)) * 1e9 / nbytes)
    for kernel, found in sorted(rates.items()):
        print(f'    "{kernel}": {np.median(found):.2g},  # {min(found):.2g} to {max(found):.2g}, {len(found)} sizes')


if __name__ == "__main__":
    main()
