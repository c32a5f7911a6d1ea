"""The auxiliary classifier of the CIFAR networks: its loss, its gradients, the trainer, recordings, checkpoints, bad values."""

import math

import numpy as np
import pytest
from recorded_twins import RUNS, bits, images, labels, make

import minires as mr
from minires import functional as F
from minires import models, nn, training
from minires.errors import ConfigError, DtypeError
from minires.gradcheck import gradcheck_model
from minires.lab import record
from minires.models.resnet_cifar import CifarResNet
from minires.training.diagnosis import Batch, diagnose

NAMES = ["plain8", "resnet8", "preresnet8", "preplain8"]


def network(name="plain8", aux_weight=0.3, **options):
    mr.manual_seed(5)
    return models.create(name, **{"width": 4, "num_classes": 10, "aux_weight": aux_weight, **options})


def batch(seed=0, size=8, dtype=np.float32):
    return images(seed, 4, size, dtype), labels(seed, 4)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def loss_by_hand(output, labels, smoothing=0.0):
    """CE(main) + weight · CE(auxiliary), written out."""
    found = []
    for logits in (output.logits.numpy(), output.aux_logits.numpy()):
        log_p = log_softmax(logits.astype(np.float64))
        found.append(-(1 - smoothing) * log_p[np.arange(len(labels)), labels].mean() - smoothing * log_p.mean(1).mean())
    return found[0] + output.aux_weight * found[1]


def middle_of(model, x):
    """The output of the second stage, by the network's own modules."""
    if hasattr(model, "stem"):
        return model.stages[1](model.stages[0](model.stem(x)))
    return model.layer2(model.layer1(F.relu(model.bn1(model.conv1(x)))))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_a_weighted_sum_of_two(name):
    model = network(name).double()
    x, y = batch(dtype=np.float64)
    output = model(mr.tensor(x))
    assert isinstance(output, nn.AuxiliaryOutput)
    with mr.no_grad():
        middle = middle_of(model, mr.tensor(x)).numpy()
    if name.startswith("pre"):
        middle = middle - middle.mean((0, 2, 3), keepdims=True)
        middle = np.maximum(middle / np.sqrt((middle**2).mean((0, 2, 3), keepdims=True) + 1e-5), 0)
    pooled = middle.mean((2, 3))
    np.testing.assert_allclose(
        output.aux_logits.numpy(), pooled @ model.aux.fc.weight.data.T + model.aux.fc.bias.data, rtol=1e-10, atol=1e-12
    )
    for smoothing in (0.0, 0.1):
        found = nn.classification_loss(output, y, smoothing).item()
        assert math.isclose(found, loss_by_hand(output, y, smoothing), rel_tol=1e-10)
    assert nn.classification_loss(output.logits, y).item() == F.cross_entropy(output.logits, y).item()


@pytest.mark.parametrize("name", NAMES)
def test_without_it_the_network_is_as_it_was(name):
    """No parameter, the same weights, and the logits are not touched by it: in evaluation mode to the bit."""
    model, twin = network(name), network(name, 0.0)
    own = [k for k in model.state_dict() if k not in twin.state_dict() and not k.startswith("aux.norm.")]
    assert own == ["aux.fc.weight", "aux.fc.bias"]
    for key, array in twin.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[key], array)
    x = mr.tensor(batch()[0])
    with mr.no_grad():
        assert bits([model.eval()(x).numpy()]) == bits([twin.eval()(x).numpy()])
    logits, expected = model.train()(x).logits.numpy(), twin.train()(x).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["plain8", pytest.param("preresnet8", marks=pytest.mark.slow)])
def test_gradients_against_finite_differences(name):
    """Of the whole loss, and of each output by itself."""
    model = network(name, width=2)
    x, y = batch()
    for loss in (lambda output: nn.classification_loss(output, y), None):
        assert gradcheck_model(model, x, loss=loss, directions=1).passed


@pytest.mark.parametrize("name", ["plain8", "preresnet8"])
def test_fused_and_unfused_gradients(name):
    model = network(name)
    x, y = batch()
    found = []
    for fused in (True, False):
        model.zero_grad()
        with mr.fusion(fused):
            nn.classification_loss(model(mr.tensor(x)), y).backward()
        found.append([p.grad.copy() for p in model.parameters()])
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["plain8", "preresnet8"])
def test_recorded_steps(name):
    """Every bit of loss, logits and gradients of a recorded step; the loss and the logits are the network's own."""
    (model, optimizer), (plain, _) = (make(lambda: network(name)) for _ in range(2))
    step, states = mr.RecordedStep(model), []
    for seed in range(5):
        x, y = batch(seed)
        plain.load_state_dict(model.state_dict())
        loss, logits = step(x, y)
        plain.zero_grad()
        output = plain(mr.tensor(x))
        nn.classification_loss(output, y).backward()
        assert bits([loss, logits]) == bits([F.cross_entropy(output.logits, y).data, output.logits.data])
        assert bits(p.grad for p in model.parameters()) == bits(p.grad for p in plain.parameters())
        assert np.abs(model.aux.fc.weight.grad).max() > 0
        optimizer.step()
        states.append(step.state)
    assert states == RUNS
    model.aux_weight = 0.5  # which launches the same kernels with another number
    step(*batch(9))
    assert step.state == "waiting"
    predict = mr.RecordedPrediction(model.train())
    assert predict(batch()[0]).shape == (4, 10)


def test_the_lab_follows_both_losses():
    model = network("resnet8").double()
    x, y = batch(dtype=np.float64)
    graph = record(model, x, y, training=True)
    nn.classification_loss(model(mr.tensor(x)), y).backward()
    weights = list(model.parameters())
    for p, [found] in zip(weights, graph.backward(weights)):
        np.testing.assert_allclose(found, p.grad, rtol=1e-9, atol=1e-14)
    # three blocks to the end, two to the auxiliary classifier: (1 + z)³ + (1 + z)²
    assert graph.count_paths(graph.input) == [2, 5, 4, 1]


def test_a_run_is_trained_resumed_and_loaded(tmp_path):
    recipe = training.Recipe(
        model="plain8", model_options={"width": 2, "aux_weight": 0.3}, epochs=1, batch_size=500, threads=1
    )
    again = training.Recipe.parse(recipe.to_toml("0"))
    assert again == recipe
    trainer = training.build_trainer(recipe)
    assert trainer.model.aux_weight == 0.3
    x, y = next(iter(trainer.train_loader))
    mean = training.Mean()
    before = trainer.model.aux.fc.weight.data.copy()
    with mr.no_grad():
        expected = F.cross_entropy(trainer.model(mr.tensor(x)).logits, y).item()
    trainer.train_step(x, y, mean)
    assert math.isclose(mean.loss, expected, rel_tol=1e-6)  # the network's own loss, to be compared with the test loss
    assert np.abs(trainer.model.aux.fc.weight.data - before).max() > 0
    path = tmp_path / "last.safetensors"
    info = {"recipe": {"model": "plain8", "model_options": dict(recipe.model_options)}, "num_classes": 10}
    training.Checkpoint(trainer.model.state_dict(), info={**info, "epoch": 1, "step": 1}).save(path)
    _, model, _ = training.load_run(path)
    assert bits(model.state_dict().values()) == bits(trainer.model.state_dict().values())
    assert diagnose(model.train(), Batch(x, y, mr.random.get_rng_state())) is None
    assert np.abs(model.aux.fc.weight.grad).max() > 0
    model.aux.fc.weight.data = model.aux.fc.weight.data * np.float32(np.nan)
    assert "aux.fc" in str(diagnose(model, Batch(x, y, mr.random.get_rng_state())))


@pytest.mark.parametrize(
    ("name", "stage", "pre"),
    [("resnet18", "layer2", False), ("resnet50v2", "stages.1", True), ("wrn16_4", "stages.1", True)],
)
def test_in_other_families_it_reads_the_second_stage_too(name, stage, pre):
    mr.manual_seed(0)
    model, heard = models.create(name, num_classes=7, aux_weight=0.4), []
    dict(model.named_modules())[stage].register_forward_hook(lambda module, given, y: heard.append(y))
    output = model(mr.tensor(images(0, 2, model.image_size // 2)))
    assert output.aux_weight == 0.4
    assert ("norm" in dict(model.aux.named_children())) == pre
    np.testing.assert_allclose(output.aux_logits.numpy(), model.aux(heard[0]).numpy(), rtol=1e-4, atol=1e-5)
    nn.classification_loss(output, np.array([1, 2])).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert isinstance(model.eval()(mr.tensor(images(0, 1, model.image_size // 2))), mr.Tensor)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf, True, "0.3", None])
def test_weights_that_cannot_be(weight):
    for name in ("plain8", "preresnet8"):
        with pytest.raises(ConfigError, match="aux_weight is the weight of the auxiliary classifier's loss, a finite"):
            models.create(name, aux_weight=weight)


def test_a_forgotten_loss():
    with pytest.raises(DtypeError, match=r"cross_entropy: takes Tensors, got AuxiliaryOutput; .*classification_loss"):
        F.cross_entropy(network()(mr.tensor(batch()[0])), batch()[1])
    assert CifarResNet(8, aux_weight=0).aux is None
