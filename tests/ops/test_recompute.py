"""Recomputed activations and lazy shortcuts, whose only visible effect is the memory that they save.

Outputs of residual blocks are discarded after the next block and recomputed in the backward pass; the values of a shortcut
are computed where they are added.
"""

import copy
import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.kernels.runtime.memory_pool import pool
from minires.lazy import LazyTensor
from minires.models.blocks import BasicBlock, BottleneckV1
from minires.recompute import SavedActivation

SHAPE = (12, 8, 16, 16)  # large enough for the pool


def blocks(count, block=BasicBlock):
    mr.manual_seed(0)
    return nn.Sequential(*[block(8, 8 // block.expansion, 1) for _ in range(count)])


def images():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def step(model, x):
    """Every gradient of one training step, as bytes."""
    model.zero_grad()
    x = mr.tensor(x, requires_grad=True)
    (model(x) ** 2).mean().backward()
    return [x.grad.tobytes(), *[p.grad.tobytes() for p in model.parameters()]]


@pytest.fixture
def discarded(monkeypatch):
    """The SavedActivations that have discarded their values."""
    found, discard = [], SavedActivation.discard

    def watched(saved):
        if not saved.is_pinned and saved._operand is not None:
            found.append(saved)
        discard(saved)

    monkeypatch.setattr(SavedActivation, "discard", watched)
    return found


@pytest.mark.parametrize("network", [BasicBlock, BottleneckV1, "resnet20"])
def test_gradients_have_the_same_bits_as_with_stored_outputs(discarded, monkeypatch, network):
    if network == "resnet20":
        mr.manual_seed(0)
        model, x = mr.models.resnet20(), np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    else:
        model, x = blocks(5, network), images()
    found = step(model, x)
    assert len(discarded) == (3 if network == "resnet20" else 2)
    monkeypatch.setattr(SavedActivation, "discard", lambda saved: None)
    assert step(model, x) == found


def test_memory_is_saved(monkeypatch):
    """Nine blocks: four outputs fewer at the end of the forward pass, and at least three at the peak of a whole step."""
    model, x = blocks(9), np.zeros((16, 8, 32, 32), np.float32)

    def held():
        before = pool.used_bytes
        y = model(mr.tensor(x, requires_grad=True))
        forward = pool.used_bytes - before
        pool.most_used = pool.used_bytes
        (y**2).mean().backward()
        model.zero_grad()
        return forward, pool.most_used - before

    held()
    saving = held()
    monkeypatch.setattr(SavedActivation, "discard", lambda saved: None)
    without = held()
    assert without[0] - saving[0] == 4 * x.nbytes
    assert without[1] - saving[1] >= 3 * x.nbytes


def test_all_memory_is_freed_without_garbage_collection():
    model, x = blocks(5), images()
    step(model, x)
    gc.collect()
    gc.disable()
    try:
        before = pool.used_bytes
        step(model, x)
        model.zero_grad()
        model(mr.tensor(x))  # recorded, but without a backward pass
        assert pool.used_bytes <= before
    finally:
        gc.enable()


def outputs_of(model, x):
    outputs, y = [], mr.tensor(x, requires_grad=True)
    for block in model:
        y = block(y)
        outputs.append(y)
    return outputs


def unfused(model, x):
    """The outputs of blocks with the same parameters, computed op by op."""
    with mr.fusion(False):
        return [z.numpy() for z in outputs_of(model, x)]


def test_reading_an_output_materializes_and_keeps_it(discarded):
    outputs = outputs_of(blocks(4), images())
    assert discarded == [outputs[1].saved]
    for _ in range(2):
        for z, expected in zip(outputs, unfused(blocks(4), images())):
            assert z.shape == SHAPE
            np.testing.assert_allclose(z.numpy(), expected, rtol=1e-3, atol=1e-5)
            assert z.numpy() is z.numpy()
        (outputs[-1] ** 2).mean().backward(retain_graph=True)


def test_in_place_changes_do_not_affect_later_outputs():
    """Features that are shifted one after another for plotting, and images that the next batch overwrites."""
    x = images()
    outputs, expected = outputs_of(blocks(5), x), unfused(blocks(5), x.copy())
    x[...] = 0
    for z, right in zip(outputs, expected):
        seen = z.numpy()
        np.testing.assert_allclose(seen, right, rtol=1e-3, atol=1e-5)
        seen -= 100


def test_kept_outputs_hold_nothing_else():
    """Features that are collected step by step: after backward() each is a single array."""
    model, x = blocks(4), images()
    step(model, x)
    model.zero_grad()
    before = pool.used_bytes
    outputs = outputs_of(model, x)
    (outputs[-1] ** 2).mean().backward()
    model.zero_grad()
    del x
    assert pool.used_bytes - before <= 5 * outputs[0].saved.operand().array.nbytes


def test_nothing_is_saved_if_nothing_requires_a_gradient():
    model, x = blocks(3), images()
    for p in model.parameters():
        p.requires_grad = False
    before = pool.used_bytes
    y = model(mr.tensor(x))
    assert pool.used_bytes - before == y.saved.operand().array.nbytes


def test_an_output_that_was_read_before_is_not_discarded(discarded):
    model = blocks(2)
    z = model[0](mr.tensor(images(), requires_grad=True))
    seen = z.numpy()
    model[1](z)
    assert not discarded
    assert z.numpy() is seen


def test_a_retained_graph_allows_a_second_backward():
    model = blocks(4)
    loss = (model(mr.tensor(images())) ** 2).mean()
    loss.backward(retain_graph=True)
    once = [p.grad.copy() for p in model.parameters()]
    loss.backward()
    for p, grad in zip(model.parameters(), once):
        np.testing.assert_array_equal(p.grad, 2 * grad)


def test_an_output_that_is_used_later_is_recomputed():
    """A shortcut around three blocks."""
    model, x = blocks(3), images()

    def loss():
        y = z = model[0](mr.tensor(x))
        for block in model[1:]:
            y = block(y)
        return ((y + z) ** 2).mean()

    found = []
    for fused in (True, False):
        model.zero_grad()
        with mr.fusion(fused):
            loss().backward()
        found.append([p.grad for p in model.parameters()])
    for ours, expected in zip(*found):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_without_a_graph_nothing_can_be_recomputed():
    with mr.no_grad():
        z = blocks(1)(mr.tensor(images()))
    assert type(z) is mr.Tensor


def inner():
    """The output of a block, not yet materialized."""
    return blocks(1)(mr.tensor(images(), requires_grad=True))


class TestShortcut:
    def test_values_are_computed_on_first_access(self):
        x = inner()
        y = F.zero_pad_shortcut(x, 2, 3, 1)
        assert isinstance(y, LazyTensor)
        assert (y.shape, y.dtype, y.ndim, y.size) == ((12, 12, 8, 8), np.float32, 4, 12 * 12 * 64)
        expected = np.pad(x.numpy()[:, :, ::2, ::2], [(0, 0), (3, 1), (0, 0), (0, 0)])
        np.testing.assert_array_equal(y.numpy(), expected)
        assert y.numpy() is y.numpy()

    @pytest.mark.parametrize("make", [lambda: mr.tensor(images(), requires_grad=True), inner], ids=["a leaf", "inner"])
    def test_values_are_those_at_the_time_of_the_call(self, make):
        """Even if the input changes in place before they are computed."""
        x, untouched = make(), make().numpy()
        y = F.zero_pad_shortcut(x, 2, 0, 0)
        x.data[...] = 7
        np.testing.assert_array_equal(y.numpy(), untouched[:, :, ::2, ::2])

    def test_once_computed_values_hold_nothing_else(self):
        y = F.zero_pad_shortcut(inner(), 2, 0, 0)
        assert y.numpy() is not None
        assert y._compute is None

    def test_the_reference_back_end_needs_no_numba(self):
        code = """
import sys
import numpy as np
import minires as mr
from minires import kernels
with kernels.backend("reference"):
    x = mr.tensor(np.ones((2, 4, 6, 6)), requires_grad=True)
    mr.functional.zero_pad_shortcut(x, 2, 1, 1).sum().backward()
print("numba" in sys.modules)
"""
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"PYTHONPATH": path}
        found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert found.stdout.strip() == "False", found.stderr

    def test_without_fusion_values_are_computed_at_once(self):
        x = inner()
        with mr.fusion(False):
            y = F.zero_pad_shortcut(x, 2, 0, 0)
        assert type(y) is mr.Tensor

    def test_tensors_that_are_not_stored_can_be_copied_and_pickled(self):
        """Also where others would be computed from their values later on."""
        conv, bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        with mr.no_grad():
            y = conv(mr.tensor(np.ones((2, 3, 5, 5), np.float32)))
            z = F.bn_relu(y, bn)
        assert isinstance(y, LazyTensor)
        module = nn.Identity()
        module.kept = [y, z]
        for found in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            for a, b in zip(found.kept, (y, z)):
                assert np.array_equal(a.data, b.data)
