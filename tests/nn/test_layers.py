import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import ConfigError, ShapeError
from minires.kernels.memory_format import hwio

LAYERS = {  # ours, torch's, the input's shape
    "linear": (lambda n: n.Linear(5, 3), (4, 5)),
    "linear without bias": (lambda n: n.Linear(5, 3, bias=False), (4, 5)),
    "conv": (lambda n: n.Conv2d(3, 4, 3), (2, 3, 6, 7)),
    "conv, pairs": (lambda n: n.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 3, 7, 8)),
    "conv, groups": (lambda n: n.Conv2d(4, 6, 3, groups=2, padding=1, bias=False), (2, 4, 5, 5)),
    "batch norm": (lambda n: n.BatchNorm2d(3), (4, 3, 5, 5)),
    "batch norm, cumulative": (lambda n: n.BatchNorm2d(3, momentum=None), (4, 3, 5, 5)),
    "batch norm, bare": (lambda n: n.BatchNorm2d(3, eps=1e-3, affine=False, track_running_stats=False), (4, 3, 5, 5)),
    "relu": (lambda n: n.ReLU(), (3, 4)),
    "leaky relu": (lambda n: n.LeakyReLU(0.2), (3, 4)),
    "gelu": (lambda n: n.GELU(), (3, 4)),
    "gelu, tanh": (lambda n: n.GELU(approximate="tanh"), (3, 4)),
    "sigmoid": (lambda n: n.Sigmoid(), (3, 4)),
    "tanh": (lambda n: n.Tanh(), (3, 4)),
    "identity": (lambda n: n.Identity(), (3, 4)),
    "flatten": (lambda n: n.Flatten(), (2, 3, 4, 5)),
    "max pool": (lambda n: n.MaxPool2d(3, stride=2, padding=1), (2, 3, 7, 8)),
    "max pool, dilated": (lambda n: n.MaxPool2d((2, 3), dilation=(2, 1)), (2, 3, 7, 8)),
    "avg pool": (lambda n: n.AvgPool2d(2), (2, 3, 6, 8)),
    "avg pool, padding not counted": (lambda n: n.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 3, 7, 8)),
    "global avg": (lambda n: n.AdaptiveAvgPool2d(1), (2, 3, 4, 5)),
    "global max": (lambda n: n.AdaptiveMaxPool2d((1, 1)), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_torchs(name):
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    mr.manual_seed(0)
    ours, theirs = make(nn).double(), make(torch.nn).double()
    theirs.load_state_dict({key: torch.tensor(a) for key, a in ours.state_dict().items()})
    rng = np.random.default_rng(0)
    for _ in range(2):  # twice: running statistics move
        x = rng.standard_normal(shape)
        a, b = mr.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-10, atol=1e-12)
        dy = rng.standard_normal(y.shape)
        ours.zero_grad()
        theirs.zero_grad()
        y.backward(dy)
        z.backward(torch.tensor(dy))
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-11)
        for key, p in theirs.named_parameters():
            grad = dict(ours.named_parameters())[key].grad
            np.testing.assert_allclose(grad, p.grad.numpy(), rtol=1e-9, atol=1e-11)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.eval()(a).numpy(), theirs.eval()(b).detach().numpy(), rtol=1e-10, atol=1e-12)
    if name != "flatten":
        assert repr(ours).split("(")[0] == repr(theirs).split("(")[0]


@pytest.mark.parametrize("name", ["linear", "conv", "conv, groups", "relu", "leaky relu", "identity"])
def test_a_layer_prints_like_torchs(name):
    torch = pytest.importorskip("torch")
    make, _ = LAYERS[name]
    assert repr(make(nn)) == repr(make(torch.nn)).replace(", inplace=False", "")


def test_every_layer_prints_its_settings():
    for layer, text in (
        (nn.Dropout(0.3), "Dropout(p=0.3)"),
        (nn.Flatten(2), "Flatten(start_dim=2)"),
        (mr.models.BasicBlock(4, 7, 2, option="A").downsample, "ZeroPad(stride=2, channels=(1, 2))"),
    ):
        assert repr(layer) == text


def test_losses_are_torchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y, target = rng.standard_normal((4, 5)), rng.standard_normal((4, 5)), np.array([0, 3, 4, 3])
    for reduction in ("mean", "sum", "none"):
        ours = nn.CrossEntropyLoss(label_smoothing=0.1, reduction=reduction)(mr.tensor(x), target)
        theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction=reduction)(
            torch.tensor(x), torch.tensor(target)
        )
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)
        ours = nn.MSELoss(reduction=reduction)(mr.tensor(x), mr.tensor(y))
        np.testing.assert_allclose(
            ours.numpy(), torch.nn.MSELoss(reduction=reduction)(torch.tensor(x), torch.tensor(y)).numpy(), rtol=1e-12
        )


def test_dropout_drops_in_training_only():
    mr.manual_seed(0)
    x, layer = mr.tensor(np.ones(10_000, np.float32)), nn.Dropout(0.25)
    y = layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.02)
    mr.manual_seed(0)
    assert np.array_equal(layer(x).numpy(), y)
    assert np.array_equal(layer.eval()(x).numpy(), x.numpy())


def test_default_initialisation_is_torchs():
    mr.manual_seed(0)
    for layer, fan_in in ((nn.Linear(400, 300), 400), (nn.Conv2d(32, 60, 3, groups=2), 144)):
        bound = 1 / np.sqrt(fan_in)
        for p in (layer.weight, layer.bias):
            assert np.abs(p.data).max() <= bound
        assert layer.weight.data.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_weights_are_stored_for_the_kernels():
    weight = nn.Conv2d(4, 6, (3, 2), groups=2).weight.data
    assert weight.shape == (6, 2, 3, 2)
    assert np.shares_memory(hwio(weight), weight)


def test_batch_norm_counts_only_batches_that_it_took():
    layer = nn.BatchNorm2d(3)
    with pytest.raises(ShapeError, match="BatchNorm2d"):
        layer(mr.tensor(np.ones((4, 3), np.float32)))
    with pytest.raises(ShapeError):
        layer(mr.tensor(np.ones((2, 4, 1, 1), np.float32)))
    assert layer.num_batches_tracked == 0
    layer(mr.tensor(np.ones((2, 3, 2, 2), np.float32)))
    assert layer.num_batches_tracked == 1
    layer.eval()(mr.tensor(np.ones((2, 3, 2, 2), np.float32)))
    assert layer.num_batches_tracked == 1
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0
    assert (layer.running_var == 1).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups=2 does not go with in_channels=3"),
        (lambda: nn.Conv2d(3, 4, 0), "kernel_size.* not 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), "padding.* not -1"),
        (lambda: nn.Conv2d(3, 4, 3, padding="same"), "padding.* not 'same'"),
        (lambda: nn.Conv2d(3, 4, 3, stride=(1, 2, 3)), "stride.*, 3"),
        (lambda: nn.Linear(0, 3), "not 0 in and 3 out"),
        (lambda: nn.Dropout(1.5), "not 1.5"),
        (lambda: nn.AdaptiveAvgPool2d(7), "AdaptiveAvgPool2d: only output size 1.* not 7"),
        (lambda: nn.MaxPool2d(3, stride=0), "stride.* not 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
