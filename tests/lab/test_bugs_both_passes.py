"""The bug zoo: mistakes in the forward pass too, which no gradient check can find."""

import numpy as np
import pytest
from bug_network import LABELS, RNG, Net, check, gradients

import minires as mr
from minires import functional as F
from minires import lab
from minires.lab.experiments.bugs import BOTH_PASSES
from minires.models.blocks import BasicBlock, PreActBasicBlock

paths = pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])


@paths
@pytest.mark.parametrize("name", [m.name for m in BOTH_PASSES])
def test_gradcheck_cannot_find_it_and_a_comparison_can(name, fused):
    model = Net()
    right_loss, _ = gradients(model, fused)
    with lab.inject(name), mr.fusion(fused):
        assert check(model).passed
        wrong_loss, _ = gradients(model, fused)
    assert abs(wrong_loss - right_loss) > 1e-3
    assert gradients(model, fused)[0] == right_loss


@paths
@pytest.mark.parametrize("block", [BasicBlock, PreActBasicBlock])
@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("x-added-to-x", lambda f, s, relu: relu(2 * s)),
        ("skip-added-twice", lambda f, s, relu: relu(f + 2 * s)),
        ("skip-missing", lambda f, s, relu: relu(f)),
        ("relu-missing", lambda f, s, relu: f + s),
        ("relu-before-addition", lambda f, s, relu: relu(f) + s),
    ],
)
def test_ends_of_blocks(name, end, block, fused):
    model = block(4, 4, 1, "A").double()
    x = np.abs(RNG.standard_normal((2, 4, 5, 5)))
    with mr.fusion(False):
        t = mr.tensor(x)
        if block is BasicBlock:
            f = model.bn2(model.conv2(model.bn1(model.conv1(t)).relu())).numpy()
        else:
            f = model.conv2(model.norm2(model.conv1(model.norm1(t).relu())).relu()).numpy()
    with lab.inject(name), mr.fusion(fused):
        y = model(mr.tensor(x)).numpy()
    relu = (lambda v: np.maximum(v, 0)) if block is BasicBlock else (lambda v: v)
    np.testing.assert_allclose(y, end(f, x, relu), atol=1e-10)


def test_losses_of_another_function():
    y = mr.tensor(RNG.standard_normal((3, 5)))
    with lab.inject("labels-shifted"):
        shifted = F.cross_entropy(y, LABELS).item()
    assert shifted == F.cross_entropy(y, LABELS[[2, 0, 1]]).item()
    with lab.inject("softmax-before-loss"):
        surest = F.cross_entropy(mr.tensor(np.eye(10) * 1e3), np.arange(10)).item()
    np.testing.assert_allclose(surest, np.log(np.e + 9) - 1)
