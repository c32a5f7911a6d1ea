"""Outputs of residual blocks that are forgotten after the next block and made again on the way back, and shortcuts whose
values are made where they are added: nothing is to be seen of either but the memory that they save."""

import gc

import numpy as np
import pytest
from minires.kernels import buffers

import minires as mr
from minires import functional as F
from minires import nn
from minires.deferred import Kept, Postponed, Remade
from minires.models.blocks import BasicBlock, BottleneckV1

SHAPE = (6, 8, 16, 16)


def blocks(count, block=BasicBlock):
    mr.manual_seed(0)
    return nn.Sequential(*[block(8, 8 // block.expansion, 1) for _ in range(count)])


def images():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def step(model, x):
    """Every gradient of a step, as bytes."""
    model.zero_grad()
    x = mr.tensor(x, requires_grad=True)
    (model(x) ** 2).mean().backward()
    return [x.grad.tobytes(), *[p.grad.tobytes() for p in model.parameters()]]


@pytest.fixture
def forgotten(monkeypatch):
    """The Kepts that have let go of something."""
    found, forget = [], Kept.forget

    def watched(kept):
        if not kept.steady and kept._operand is not None:
            found.append(kept)
        forget(kept)

    monkeypatch.setattr(Kept, "forget", watched)
    return found


@pytest.mark.parametrize("block", [BasicBlock, BottleneckV1])
@pytest.mark.parametrize("network", ["chain", "resnet20"])
def test_gradients_have_the_bits_of_those_of_stored_outputs(forgotten, monkeypatch, block, network):
    if network == "chain":
        model, x = blocks(5, block), images()
    else:
        mr.manual_seed(0)
        model, x = mr.models.resnet20(), np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    found = step(model, x)
    assert len(forgotten) == (2 if network == "chain" else 3)
    monkeypatch.setattr(Kept, "forget", lambda kept: None)
    assert step(model, x) == found


def test_memory_is_saved(monkeypatch):
    """Nine blocks: four outputs less at the end of the forward pass."""
    model, x = blocks(9), np.zeros((16, 8, 32, 32), np.float32)

    def held():
        before = buffers.pool.used_bytes
        y = model(mr.tensor(x, requires_grad=True))
        return buffers.pool.used_bytes - before, y

    held()
    saving, _ = held()
    monkeypatch.setattr(Kept, "forget", lambda kept: None)
    without, _ = held()
    assert without - saving == 4 * x.nbytes


def test_all_memory_comes_back_without_a_garbage_collection():
    model, x = blocks(5), images()
    step(model, x)
    gc.collect()
    gc.disable()
    try:
        before = buffers.pool.used_bytes
        step(model, x)
        model.zero_grad()
        model(mr.tensor(x))  # recorded, never walked
        assert buffers.pool.used_bytes <= before
    finally:
        gc.enable()


def test_who_looks_sees_the_values_and_keeps_them(forgotten):
    model, x = blocks(4), images()
    outputs = []
    y = mr.tensor(x, requires_grad=True)
    for block in model:
        y = block(y)
        outputs.append(y)
    assert [type(z) for z in outputs] == [Remade, mr.Tensor, Remade, mr.Tensor]
    first, third = outputs[0], outputs[2]
    assert len(forgotten) == 2
    with mr.fusion(False):
        mr.manual_seed(0)
        fresh = blocks(4)
        expected = fresh[0](mr.tensor(x)).numpy()
    np.testing.assert_allclose(first.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert first.numpy() is first.numpy()
    assert third.shape == SHAPE
    (y**2).mean().backward()
    np.testing.assert_allclose(first.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_what_was_looked_at_before_is_not_forgotten(forgotten):
    model = blocks(2)
    z = model[0](mr.tensor(images(), requires_grad=True))
    seen = z.numpy()
    model[1](z)
    assert not forgotten
    assert z.numpy() is seen


def test_a_kept_graph_can_be_walked_twice():
    model = blocks(4)
    loss = (model(mr.tensor(images())) ** 2).mean()
    loss.backward(retain_graph=True)
    once = [p.grad.copy() for p in model.parameters()]
    loss.backward()
    for p, grad in zip(model.parameters(), once):
        np.testing.assert_array_equal(p.grad, 2 * grad)


def test_an_output_that_is_used_later_is_made_again():
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


def test_without_a_graph_nothing_can_be_made_again():
    with mr.no_grad():
        z = blocks(1)(mr.tensor(images()))
    assert type(z) is mr.Tensor


class TestShortcut:
    def test_its_values_are_made_when_somebody_looks(self):
        x = mr.tensor(images(), requires_grad=True) * 2
        y = F.zero_pad_shortcut(x, 2, 3, 1)
        assert isinstance(y, Postponed)
        assert (y.shape, y.dtype, y.ndim, y.size) == ((6, 12, 8, 8), np.float32, 4, 6 * 12 * 64)
        expected = np.pad(x.numpy()[:, :, ::2, ::2], [(0, 0), (3, 1), (0, 0), (0, 0)])
        np.testing.assert_array_equal(y.numpy(), expected)
        assert y.numpy() is y.numpy()

    def test_of_a_leaf_they_are_made_at_once(self):
        """Whose values may change in place, by an optimizer, say."""
        x = mr.tensor(images(), requires_grad=True)
        y = F.zero_pad_shortcut(x, 2, 0, 0)
        before = x.numpy()[:, :, ::2, ::2].copy()
        x.data[...] = 7
        np.testing.assert_array_equal(y.numpy(), before)

    def test_unfused_they_are_made_at_once(self):
        with mr.fusion(False):
            y = F.zero_pad_shortcut(mr.tensor(images(), requires_grad=True) * 2, 2, 0, 0)
        assert type(y) is mr.Tensor
