"""DenseNet-BC: growth, compression, recorded steps, auxiliary classifier, dropout; parity is in test_torchvision_and_timm."""

import numpy as np
import pytest
from recorded_twins import RUNS, bits, images, labels, make

import minires as mr
from minires import functional as F
from minires import models, nn
from minires.gradcheck import gradcheck_model


def small(**options):
    mr.manual_seed(0)
    return models.CifarDenseNet(**{"depth": 16, "growth": 4} | options)


def test_channels_grow_and_are_compressed():
    """k per layer, from 2k on; a transition keeps θ of them: Huang et al. 2017, §3."""
    model = models.CifarDenseNet(40, growth=12, compression=0.5)
    widths = {name: m.norm.num_features for name, m in model.named_modules() if hasattr(m, "norm") and "tran" in name}
    assert widths == {"features.transition1": 24 + 6 * 12, "features.transition2": 48 + 6 * 12}
    assert model.classifier.in_features == 60 + 6 * 12
    assert models.CifarDenseNet(40, growth=12, compression=1).classifier.in_features == 24 + 18 * 12
    x = mr.tensor(images(0, 2, 9))
    assert small(num_classes=7)(x).shape == (2, 7)


@pytest.mark.parametrize("aux_weight", [0.0, 0.3])
def test_recorded_steps(aux_weight):
    (model, optimizer), (plain, _) = (make(lambda: small(aux_weight=aux_weight)) for _ in range(2))
    step, states = mr.RecordedStep(model), []
    for seed in range(5):
        x, y = images(seed, 4, 16), labels(seed, 4)
        plain.load_state_dict(model.state_dict())
        loss, logits = step(x, y)
        plain.zero_grad()
        output = plain(mr.tensor(x))
        nn.classification_loss(output, y).backward()
        main = output.logits if aux_weight else output
        assert bits([loss, logits]) == bits([F.cross_entropy(main, y).data, main.data])
        assert bits(p.grad for p in model.parameters()) == bits(p.grad for p in plain.parameters())
        optimizer.step()
        states.append(step.state)
    assert states == RUNS


def test_the_auxiliary_classifier_reads_the_second_block():
    model, x = small(aux_weight=0.3).double(), mr.tensor(images(0, 4, 8, np.float64))
    output = model(x)
    assert output.aux_weight == 0.3
    y = x
    for module in model.features[:4]:  # conv0, denseblock1, transition1, denseblock2
        y = module(y)
    np.testing.assert_allclose(output.aux_logits.numpy(), model.aux(y).numpy(), rtol=1e-10)
    assert isinstance(model.eval()(x), mr.Tensor)


def test_dropout_follows_each_layer():
    model, x = small(dropout=0.2), mr.tensor(images(0, 2, 8))
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 6
    assert not np.array_equal(model(x).numpy(), model(x).numpy())
    twin = small()
    twin.load_state_dict(model.state_dict())
    with mr.no_grad():
        np.testing.assert_array_equal(model.eval()(x).numpy(), twin.eval()(x).numpy())


@pytest.mark.slow
def test_gradients_against_finite_differences():
    assert gradcheck_model(small(depth=10, growth=2), images(0, 4, 8), directions=1).passed
