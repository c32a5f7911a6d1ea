"""Fusion and Winograd, on and off: the same gradients, the same training up to rounding, and constant memory."""

import gc
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.kernels.runtime import memory_pool
from minires.kernels.switches import uses_winograd

SWITCHES = list(product([True, False], repeat=2))
BOTH = pytest.mark.parametrize(("fused", "winograd"), SWITCHES, ids=lambda on: "on" if on else "off")


@contextmanager
def switched(fused, winograd):
    with mr.fusion(fused), mr.winograd(winograd):
        yield


def test_the_switch():
    assert uses_winograd()
    with mr.winograd(False):
        assert not uses_winograd()
        with mr.winograd():
            assert uses_winograd()
        assert not uses_winograd()
        other = []
        thread = threading.Thread(target=lambda: other.append(uses_winograd()))
        thread.start()
        thread.join()
        assert other == [True]  # each thread has its own
    assert uses_winograd()
    assert mr.winograd(False)(uses_winograd)() is False  # a decorator too
    with pytest.raises(KeyError), mr.winograd(False):
        raise KeyError
    assert uses_winograd()


def test_the_switches_need_no_numba():
    script = "import sys, minires as mr\nwith mr.winograd(False), mr.fusion(False): pass\nprint('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("winograd", [True, False])
def test_the_switch_decides(winograd_taken, winograd):
    x, w = (np.random.default_rng(0).standard_normal(shape) for shape in ((2, 16, 16, 16), (16, 16, 3, 3)))
    x, w = (mr.tensor(a, requires_grad=True) for a in (x, w))
    with mr.winograd(winograd):
        F.conv2d(x, w, padding=1).sum().backward()
    assert set(winograd_taken) == ({"forward", "input_grad", "weight_grad"} if winograd else set())


class Block(nn.Module):
    """A block of 16 channels; two 16×16 images have 32 tiles."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = (nn.BatchNorm2d(16) for _ in range(2))
        for bn in (self.bn1, self.bn2):
            bn.weight.data[...], bn.bias.data[...] = np.random.default_rng(3).uniform(0.5, 1.5, (2, 16))

    def forward(self, x):
        y = F.conv_bn_relu(x, self.conv1, self.bn1)
        return F.conv_bn_add_relu(y, self.conv2, self.bn2, x)


@BOTH
def test_gradients_of_a_block(winograd_taken, fused, winograd):
    mr.manual_seed(0)
    block, x = Block().double(), np.random.default_rng(1).standard_normal((2, 16, 16, 16))
    with switched(fused, winograd):
        for result in (
            mr.gradcheck(block, [x], directions=4),
            mr.gradcheck_model(block, x, directions=4),
        ):
            assert {c.status for c in result.checked} == {"right"}
            assert all(len(c.differences) > len(c.kinks) for c in result.checked)  # not only corners of ReLU
    assert set(winograd_taken) == ({"forward", "input_grad", "weight_grad"} if winograd else set())


def train(steps=3, dtype=np.float32, images=8):
    """Losses of some training steps of a resnet8, and its state after them."""
    mr.manual_seed(0)
    model = mr.models.resnet8()
    if dtype == np.float64:
        model.double()
    optimizer = mr.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)
    draw, losses = np.random.default_rng(0), []
    for _ in range(steps):
        x = draw.standard_normal((images, 3, 32, 32)).astype(dtype)
        loss = F.cross_entropy(model(mr.tensor(x)), draw.integers(0, 10, images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


def bits(found):
    losses, state = found
    return losses, b"".join(array.tobytes() for array in state.values())


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 2e-5)], ids=["float64", "float32"])
def test_training_is_the_same_up_to_rounding(winograd_taken, dtype, rtol):
    found = {}
    for switches in SWITCHES:
        winograd_taken.clear()
        with switched(*switches):
            found[switches] = train(dtype=dtype)
        assert bool(winograd_taken) == switches[1]
    losses, state = found[False, False]
    for other_losses, other in found.values():
        np.testing.assert_allclose(other_losses, losses, rtol=rtol)
        for name, array in state.items():
            assert abs(other[name] - array).max() <= rtol * abs(array).max(), name
    assert len({bits(result)[1] for result in found.values()}) == 4  # each of the switches has an effect


@BOTH
def test_same_bits_for_any_number_of_threads(winograd_taken, fused, winograd):
    found = []
    for threads in (1, 2):  # conftest.py restores the number
        mr.set_num_threads(threads)
        with switched(fused, winograd):
            found.append(bits(train()))
    assert found[0] == found[1]


def resident():
    """The resident memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc of Linux")
def test_memory_stays_constant_over_steps(winograd_taken):
    """200 fused steps: from the tenth on, neither memory in use nor resident memory grows."""
    mr.manual_seed(0)
    model = mr.models.resnet8()
    optimizer = mr.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    draw = np.random.default_rng(0)
    for step in range(200):
        x = mr.tensor(draw.standard_normal((16, 3, 32, 32)).astype(np.float32))
        loss = F.cross_entropy(model(x), draw.integers(0, 10, 16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        del x, loss
        if step == 9:
            gc.collect()
            used, most, held = memory_pool.pool.used_bytes, memory_pool.pool.most_used, resident()
    assert memory_pool.pool.used_bytes == used  # without a garbage collection
    assert memory_pool.pool.most_used == most
    assert resident() - held < 4 << 20  # an array of 64 KiB a step would be 12 MB


@BOTH
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_saved_under_no_grad(winograd_taken, fused, winograd, training):
    """Even while the output is held, and although parameters require gradients, pooled memory is as before."""
    mr.manual_seed(0)
    model = mr.models.resnet8()
    model.train(training)
    x = mr.tensor(np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32))
    gc.collect()
    used = memory_pool.pool.used_bytes
    with switched(fused, winograd), mr.no_grad():
        y = model(x)
    assert memory_pool.pool.used_bytes == used
    assert y.numpy().nbytes < memory_pool.SMALLEST
    with switched(fused, winograd):
        y = model(x)
    if training:
        assert memory_pool.pool.used_bytes > used  # so the assertion above would notice
