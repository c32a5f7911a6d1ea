"""The peers do the same work: the same parameters, the same losses from the same weights, the same convolutions."""

import numpy as np
import pytest

pytest.importorskip("torch")

import minires as mr
from benchmarks import cases, conv_peers, peers, torch_models
from benchmarks.cases import (
    COMPILE,
    COMPILE_LAST,
    FROZEN,
    JAX,
    LAST,
    MINIRES,
    NCHW,
    NCNN,
    NUMPY,
    ONNX,
    OPENVINO,
    Case,
    Conv,
)

# PyTorch's compiler and exporter warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.parametrize("name", sorted({*(case.model for case in cases.TRAIN), "preresnet20", "resnet34", "resnet50"}))
def test_pytorch_networks_have_our_parameters_by_name_and_shape(name):
    ours, theirs = mr.models.create(name).state_dict(), torch_models.create(name).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}


def test_an_unknown_network_is_refused_by_name():
    for name in ("resnet21", "plain20", "preresnet164"):
        with pytest.raises(ValueError, match=name):
            torch_models.create(name)


def test_the_speed_record_has_its_size_and_its_optimizer():
    """Muon moves filters as ours does."""
    import torch

    from benchmarks import airbench

    net = airbench.CifarNet()
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    assert trained == convolutions + 2 * (64 + 256 + 256) + 2560
    rng = np.random.default_rng(0)
    start, *gradients = rng.standard_normal((4, 8, 4, 3, 3)).astype(np.float32)
    theirs, ours = torch.nn.Parameter(torch.from_numpy(start.copy())), mr.nn.Parameter(start.copy())
    pair = (
        airbench.Muon([theirs], lr=0.24, momentum=0.6),
        mr.optim.Muon([ours], 0.24, 0.6, weight_decay=0, ns_steps=3, scale="none", normalize=True),
    )
    for gradient in gradients:
        theirs.grad, ours.grad = torch.from_numpy(gradient.copy()), gradient
        for optimizer in pair:
            optimizer.step()
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=2e-4, atol=2e-5)


def weights(case):
    mr.manual_seed(3)
    return mr.models.create(case.model).state_dict()


def results(job, name, case, times):
    step, parameters = peers.build(job, name, case, 1, weights(case))
    return [step() for _ in range(times)], parameters


TRAIN = [(model, name) for model in ("resnet20", "preresnet8") for name in (NCHW, LAST, NUMPY)]
COMPILED = [(model, name) for model in ("resnet20", "preresnet8") for name in (COMPILE, COMPILE_LAST)]


@pytest.mark.parametrize(
    ("model", "name"), [*TRAIN, ("resnet8", JAX), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in COMPILED)]
)
def test_losses_of_two_steps_are_equal(model, name):
    if name == JAX:
        pytest.importorskip("jax")
    case = Case(model, 4)
    ours, parameters = results("train", MINIRES, case, 2)
    theirs, their_parameters = results("train", name, case, 2)
    assert their_parameters == parameters
    np.testing.assert_allclose(theirs[0], ours[0], rtol=1e-5)
    np.testing.assert_allclose(theirs[1], ours[1], rtol=2e-3)  # a step at learning rate 0.1 magnifies the last bits
    assert abs(ours[1] - ours[0]) > 0.01 * ours[0]  # and it has changed something


MODULES = {ONNX: ("onnx", "onnxruntime"), OPENVINO: ("onnx", "openvino"), NCNN: ("ncnn", "pnnx")}
ENGINES = [("resnet18", name) for name in MODULES]  # max-pooling, projections, 224 x 224


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *(("resnet20", name) for name in (NCHW, LAST, *MODULES)),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in [("resnet20", COMPILE), ("resnet20", FROZEN), *ENGINES]
        ),
    ],
)
def test_logits_are_equal(model, name):
    for module in MODULES.get(name, ()):
        pytest.importorskip(module)
    case = Case(model, 2)
    (ours,), parameters = results("inference", MINIRES, case, 1)
    (theirs,), their_parameters = results("inference", name, case, 1)
    assert their_parameters == parameters
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=2e-5 * abs(ours).max())  # half precision fails


@pytest.mark.parametrize("name", [NCHW, LAST])
@pytest.mark.parametrize("conv", [Conv(2, 8, 3, 16), Conv(2, 9, 8, 4, 3, 2), Conv(1, 8, 4, 8, 1, 2)], ids=str)
def test_convolutions_are_equal(name, conv):
    for use in conv.uses:
        ours = conv_peers.build(MINIRES, 1)(conv, use)()
        theirs = conv_peers.build(name, 1)(conv, use)().numpy()
        theirs = theirs.transpose(2, 3, 1, 0) if use == "weight gradient" else theirs.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        if use == "forward":
            assert ours.shape[1:3] == (conv.out_size, conv.out_size)
