"""Stochastic depth: what is left out, how often, the gradients, the trainer; evaluation is that of the network without it."""

import numpy as np
import pytest
from recorded_twins import images, labels

import minires as mr
from minires import functional as F
from minires import models, training
from minires.errors import ConfigError
from minires.models.blocks import ResidualBlock

FAMILIES = {
    "resnet20": {"width": 4},
    "preresnet20": {"width": 4},
    "preresnet164": {"width": 2},
    "wrn16_4": {"dropout": 0.3},
    "resnext29_8x64d": {},
    "resnet18": {"num_classes": 10},
    "resnet50v2": {"num_classes": 10},
}


def network(name="resnet20", p=0.5, **options):
    mr.manual_seed(2)
    return models.create(name, **{**FAMILIES.get(name, {}), **options}, stochastic_depth=p)


def blocks(model):
    return [m for m in model.modules() if isinstance(m, ResidualBlock)]


@pytest.mark.parametrize("name", FAMILIES)
def test_probabilities_rise_linearly(name):
    found = [block.drop for block in blocks(network(name))]
    assert found == pytest.approx([0.5 * i / len(found) for i in range(1, len(found) + 1)])
    assert all(block.drop == 0 for block in blocks(network(name, p=0)))


def drawn(monkeypatch, *numbers):
    """The generator draws these, one after another."""
    left = list(numbers)

    class Generator:
        def random(self):
            return left.pop(0)

    monkeypatch.setattr("minires.models.blocks.generator", Generator)
    return left


def block_of(name):
    model = {"bottleneck": "resnet50", "preact bottleneck": "resnet50v2"}.get(name, name)
    net = models.create(model)
    return {
        "resnet20": lambda: (net.layer1[1], net.layer2[0]),
        "preresnet20": lambda: (net.stages[0].blocks[1], net.stages[1].blocks[0]),
        "resnet50": lambda: (net.layer1[1], net.layer1[0]),
        "resnet50v2": lambda: (net.stages[0].blocks[1], net.stages[0].blocks[0]),
    }[model]()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["resnet20", "preresnet20", "bottleneck", "preact bottleneck"])
def test_a_block_with_and_without_its_function(name, fused, monkeypatch):
    """S(x) + b·F(x)/(1 − p), b drawn; a ReLU follows in blocks of 2015. Values, every gradient and running statistics."""
    mr.manual_seed(0)
    for block in block_of(name):
        block.double()
        channels = block.conv1.in_channels
        array = np.abs(np.random.default_rng(0).standard_normal((2, channels, 6, 6)))  # as after a ReLU
        state = {k: v.copy() for k, v in block.state_dict().items()}
        found = {}
        for kept in (True, False):
            block.load_state_dict(state)
            block.zero_grad()
            block.drop = 0.25
            left = drawn(monkeypatch, 0.9 if kept else 0.1)
            x = mr.tensor(array, requires_grad=True)
            with mr.fusion(fused):
                y = block(x)
                (y * y).sum().backward()
            assert not left
            statistics = {key: a.copy() for key, a in block.state_dict().items()}
            found[kept] = y.numpy(), x.grad, {n: p.grad for n, p in block.named_parameters()}, statistics
        monkeypatch.undo()
        block.load_state_dict(state)
        block.zero_grad()
        block.drop = 0.0
        x = mr.tensor(array, requires_grad=True)
        with mr.fusion(False):
            rectify = not hasattr(block, "norm1")
            shortcut = block.without_residual(x)
            last = getattr(block, block.last_norm if rectify else block.last_conv)
            heard = []
            handle = last.register_forward_hook(lambda module, given, output, heard=heard: heard.append(output))
            block(x)
            handle.remove()
            expected = block.downsample(x) if rectify else shortcut
            expected = expected + heard[0] * (1 / 0.75)
            expected = F.relu(expected) if rectify else expected
            (expected * expected).sum().backward()
        y, dx, gradients, _ = found[True]
        np.testing.assert_allclose(y, expected.numpy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dx, x.grad, rtol=1e-8, atol=1e-10)
        for key, p in block.named_parameters():
            np.testing.assert_allclose(gradients[key], p.grad, rtol=1e-7, atol=1e-9 * np.abs(p.grad).max(), err_msg=key)
        y, _, gradients, after = found[False]
        np.testing.assert_allclose(y, shortcut.numpy(), rtol=1e-12)
        assert gradients["conv2.weight"] is None
        assert after["bn2.num_batches_tracked" if rectify else "norm2.num_batches_tracked"] == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_evaluation_is_that_of_the_network_without_it(name):
    model, plain = network(name), network(name, p=0)
    plain.load_state_dict(model.state_dict())
    side = 64 if model.image_size == 224 else 16
    x = mr.tensor(images(0, 2, side))
    assert not np.array_equal(model(x).numpy(), model(x).numpy())
    plain.load_state_dict(model.state_dict())
    with mr.no_grad():
        np.testing.assert_array_equal(model.eval()(x).numpy(), plain.eval()(x).numpy())


def test_the_expectation_is_that_of_evaluation():
    """Of one block, over many draws, with fixed statistics."""
    block = models.resnet8(width=4, option="B").layer2[0].double().eval()
    x = mr.tensor(np.random.default_rng(0).standard_normal((2, 4, 4, 4)))
    block.drop, block.training = 0.3, True
    mr.manual_seed(0)
    with mr.no_grad():
        factors = np.array([block.factor() for _ in range(20_000)])
        assert set(factors) == {0.0, 1 / 0.7}
        assert factors.mean() == pytest.approx(1, abs=0.015)  # three standard deviations
        block.training = False
        assert block.factor() == 1
        block(x)


def test_it_is_not_recorded_in_training_and_is_in_evaluation():
    model = network()
    step, x, y = mr.RecordedStep(model), images(0, 2, 16), labels(0, 2)
    for _ in range(4):
        step(x, y)
    assert step.state == "waiting"
    predict = mr.RecordedPrediction(model.eval())
    for _ in range(4):
        predict(x)
    assert predict.state == "checked"


def test_a_run_learns_and_what_was_left_out_stays(tmp_path):
    recipe = training.Recipe(
        model="resnet8",
        model_options={"width": 4, "stochastic_depth": 0.9},
        epochs=1,
        batch_size=100,
        threads=1,
        lr=0.1,
    )
    trainer = training.build_trainer(recipe)
    last = trainer.model.layer3[0]
    assert last.drop == pytest.approx(0.9)
    x, y = next(iter(trainer.train_loader))
    moved = []
    for _ in range(8):
        before = last.conv1.weight.data.copy()
        trainer.train_step(x, y, training.Mean())
        moved.append(not np.array_equal(before, last.conv1.weight.data))
    assert True in moved
    assert False in moved


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: models.resnet20(stochastic_depth=1.5),
            "stochastic_depth is a probability from 0 up and below 1, not 1.5",
        ),
        (lambda: models.resnet20(stochastic_depth=-0.1), "stochastic_depth is a probability"),
        (lambda: models.resnet20(stochastic_depth=float("nan")), "stochastic_depth is a probability"),
        (lambda: models.resnet18(stochastic_depth="0.5"), "stochastic_depth is a probability"),
        (lambda: models.resnet50v2(stochastic_depth=True), "stochastic_depth is a probability"),
        (lambda: models.plain20(stochastic_depth=0.5), "without a shortcut"),
        (lambda: models.preplain164(stochastic_depth=0.5), "without a shortcut"),
        (lambda: models.create("densenet_bc100_12", stochastic_depth=0.5), "has no option 'stochastic_depth'"),
    ],
)
def test_probabilities_that_cannot_be(call, said):
    with pytest.raises(ConfigError, match=said):
        call()
