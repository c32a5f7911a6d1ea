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
    assert result_with(shortcuts, total).verdict.word == word


def result_with(shortcuts, total, identity=(1, 1)):
    ones, zeros, size = np.ones(2), np.zeros(2), np.array(identity, float)
    sparse, pixels = np.array([0.7, 0.75]), np.zeros((0, 0))
    return lab.Split({}, ["a", "b"], ones, size, ones, np.array(total), zeros, zeros, sparse, shortcuts, zeros, pixels)


def test_a_block_without_gradient_says_nothing():
    """Where no gradient arrives at the addition, nothing is lost in the block."""
    assert result_with(["identity", "identity"], [0.5, 0.0], identity=(1, 0)).verdict.word == "seen"
    assert result_with(["identity", "identity"], [0.0, 0.0], identity=(0, 0)).verdict.word == "unclear"


@pytest.mark.parametrize("name", ["resnet14", "preresnet14"])
@pytest.mark.parametrize("option", ["A", "B"])
def test_a_strided_shortcut_leaves_a_checkerboard(name, option):
    """One pixel in four of the first block with a stride, whatever its kind."""
    mr.manual_seed(0)
    result = lab.split(mr.models.create(name, width=4, option=option, num_classes=10).double(), batch())
    assert result.pixels.shape == (8, 8)
    assert (result.pixels[::2, ::2] > 0).all()
    rest = result.pixels.copy()
    rest[::2, ::2] = 0
    assert not rest.any()
    [strided] = [i for i, block in enumerate(result.blocks) if block in ("layer2.0", "stages.1.blocks.0")]
    assert math.isclose(np.sqrt((result.pixels**2).sum()), result.identity[strided], rel_tol=1e-12)
    assert len(result.plot().axes) == 4  # two curves, the pixels and their scale
    assert "the parts sum to the gradient to within" in result.verdict.because


def test_a_network_without_strides_has_no_checkerboard(tmp_path):
    result = lab.split(Block(0.5).double(), batch())
    assert result.pixels.size == 0
    assert len(result.plot(tmp_path / "picture.png").axes) == 2
