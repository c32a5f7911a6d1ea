"""The experiment split: the parts of every block's gradient against the tape, and a block in which they cancel."""

import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab, nn


def batch(images=4, side=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((images, 3, side, side)), rng.integers(0, 10, images)


def test_the_parts_sum_to_the_gradient():
    mr.manual_seed(0)
    model, (images, labels) = mr.models.resnet8(option="B").double(), batch()
    result = lab.split(model, (images, labels))
    assert result.blocks == ["layer1.0", "layer2.0", "layer3.0"]
    assert result.error.max() < 1e-12
    x = mr.tensor(images, requires_grad=True)
    seen = {}
    outputs = {}
    handles = [
        model.layer1[0].register_forward_hook(lambda module, inputs, y: outputs.update({"layer1.0": y})),
    ]
    handles += [
        block.register_forward_pre_hook(lambda module, inputs, name=name: seen.update({name: inputs[0]}))
        for name, block in (("layer1.0", model.layer1[0]), ("layer2.0", model.layer2[0]), ("layer3.0", model.layer3[0]))
    ]
    with mr.fusion(False):
        loss = F.cross_entropy(model(x), labels)
        for y in seen.values():
            y.retain_grad()
        loss.backward()
    for handle in handles:
        handle.remove()
    np.testing.assert_allclose(result.total, [np.linalg.norm(seen[name].grad) for name in result.blocks], rtol=1e-10)
    assert result.shortcuts == ["identity", "other", "other"]
    # the identity part is h itself, masked by the ReLU; below a stride it reaches one pixel in four
    masked = float((outputs["layer1.0"].data == 0).mean())
    np.testing.assert_allclose(result.sparsity, [masked, 0.75, 0.75], rtol=1e-12)


class Block(nn.Module):
    """x + scale·x, so that J_F = scale."""

    def __init__(self, scale):
        self.scale, self.fc = scale, nn.Linear(3, 10)

    def forward(self, x):
        x = F.residual_add(x * self.scale, x)
        return self.fc(F.flatten(F.global_avg_pool2d(x), 1))


@pytest.mark.parametrize(
    ("scale", "word"), [(0.5, "seen"), (-1.0, "not seen"), (-0.999, "not seen"), (-0.95, "unclear")]
)
def test_at_least_one_is_refuted(scale, word):
    """Where J_F is −1 the parts cancel, and nothing passes the block, shortcut or not."""
    result = lab.split(Block(scale).double(), batch())
    assert result.verdict.word == word
    assert abs(result.cosine[0] - np.sign(scale)) < 1e-12
    assert math.isclose(result.total[0], abs(1 + scale) * result.identity[0], rel_tol=1e-9, abs_tol=1e-15)


def test_a_residual_function_without_gradient():
    result = lab.split(Block(0.0).double(), batch())
    assert result.residual[0] == 0
    assert math.isnan(result.cosine[0])
    assert lab.Split.from_json(result.to_json()).blocks == ["the network"]


@pytest.mark.parametrize(
    ("shortcuts", "total", "word"),
    [
        (["identity", "other"], [0.5, 0.001], "seen"),
        (["identity", "identity"], [0.5, 0.001], "not seen"),
        (["identity", "identity"], [0.5, 0.05], "unclear"),
        (["other", "other"], [0.5, 0.5], "unclear"),
    ],
)
def test_the_verdict_follows_its_rule(shortcuts, total, word):
    """By the blocks whose shortcut is the identity, however many zeros a ReLU makes there."""
    ones, zeros = np.ones(2), np.zeros(2)
    sparse = np.array([0.7, 0.75])
    result = lab.Split({}, ["a", "b"], ones, ones, ones, np.array(total), zeros, zeros, sparse, shortcuts, zeros)
    assert result.verdict.word == word
