"""The experiment refine against formulas written out, on blocks whose residual function is known."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError


class Descend(nn.Module):
    """x + F(x) with F(x) = scale·∂L/∂x of the network itself, as a constant."""

    def __init__(self, gradient, scale):
        self.step, self.fc = scale * gradient, nn.Linear(3, 10)
        self.register_buffer("step", self.step)

    def forward(self, x):
        x = F.residual_add(mr.tensor(self.step), x)
        return self.fc(F.flatten(F.global_avg_pool2d(x), 1))


@pytest.mark.parametrize(("scale", "word"), [(-1.0, "seen"), (1.0, "not seen")])
def test_a_step_down_and_a_step_up(scale, word):
    """For a linear network the gradient does not depend on x to first order: F is along it, or against it, exactly."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((5, 3, 4, 4)), rng.integers(0, 10, 5)
    mr.manual_seed(0)
    model = Descend(np.zeros_like(images), 1.0).double()
    x = mr.tensor(images, requires_grad=True)
    F.cross_entropy(model(x), labels).backward()
    model.step = scale * 1e-6 * x.grad
    result = lab.refine(Residual(model), (images, labels))
    assert result.verdict.word == word
    np.testing.assert_allclose(result.cosine, np.sign(scale), atol=1e-6)
    size = [np.linalg.norm(model.step[i]) / np.linalg.norm(images[i]) for i in range(5)]
    np.testing.assert_allclose(result.ratio, np.mean(size))
    np.testing.assert_allclose(result.ratio_error, np.std(size, ddof=1) / 5**0.5)


class Residual(nn.Module):
    """The same, where the residual function follows from x, so that there is a common tensor."""

    def __init__(self, model):
        self.model = model

    def forward(self, x):
        x = F.residual_add(x * 0 + mr.tensor(self.model.step), x)
        return self.model.fc(F.flatten(F.global_avg_pool2d(x), 1))


def test_blocks_and_stages():
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((4, 3, 8, 8)), rng.integers(0, 10, 4)
    mr.manual_seed(0)
    result = lab.refine(mr.models.resnet14().double(), batch)
    assert result.blocks == ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]
    assert result.stage == [0, 0, 1, 2]
    assert (np.abs(result.cosine) < 1).all()
    assert (result.ratio > 0).all()
    again = lab.Refine.from_json(result.to_json())
    assert again.to_json() == result.to_json()


def result_with(cosine, errors, stage):
    zeros = np.zeros(len(cosine))
    return lab.Refine({}, list("abc")[: len(cosine)], stage, np.array(cosine), np.array(errors), zeros, zeros)


@pytest.mark.parametrize(
    ("cosine", "errors", "stage", "word"),
    [
        ([0.5, -0.1, -0.1], [0.01, 0.04, 0.04], [0, 1, 1], "seen"),
        ([0.5, -0.1, -0.1], [0.01, 0.06, 0.06], [0, 1, 1], "unclear"),  # errors of the same images do not average out
        ([-0.5, 0.1, 0.1], [0.01, 0.04, 0.04], [0, 1, 1], "not seen"),
        ([-0.5, -0.5, 0.5], [0.01, 0.01, 0.01], [0, 0, 1], "not seen"),
    ],
)
def test_the_verdict_follows_its_rule(cosine, errors, stage, word):
    assert result_with(cosine, errors, stage).verdict.word == word


def test_bad_input():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, 3, 8, 8)), rng.integers(0, 10, 1)
    with pytest.raises(ConfigError, match="two images at least, not 1"):
        lab.refine(mr.models.resnet8().double(), one)
    with pytest.raises(ConfigError, match="has no residual addition"):
        lab.refine(mr.models.plain8().double(), (np.zeros((2, 3, 8, 8)), np.zeros(2, int)))
