"""detect_anomaly: it names the operation and the module in which a NaN or Inf first appears."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.anomaly import all_finite, describe, describe_nonfinite
from minires.errors import AnomalyError, ShapeError
from minires.grad_mode import watcher
from minires.tensor import Op


class Bad(nn.Module):
    """y = x·w, with ``forward`` put among the values in the forward pass, or ``backward`` among the gradients."""

    def __init__(self, forward=None, backward=None):
        self.weight = nn.Parameter(np.ones(1, np.float32))
        self.spoil = forward, backward

    def forward(self, x):
        y = x * self.weight
        return Spoil(*self.spoil).apply(y) if any(self.spoil) else y


class Spoil(Op):
    def __init__(self, forward, backward):
        self.how = forward, backward

    def forward(self, x):
        return x if self.how[0] is None else self._put(x, self.how[0])

    def backward(self, dy, needs):
        return (dy if self.how[1] is None else self._put(dy, self.how[1]),)

    def _put(self, array, value):
        array = array.copy(order="K")
        array.ravel(order="K")[:2] = value
        return array


def network(**where):
    """A small residual network with a Bad in it: ``network(layer2=Bad(…))`` puts it at the end of layer2."""
    mr.manual_seed(0)
    model = mr.models.create("resnet8", num_classes=10)
    for name, module in where.items():
        getattr(model, name).add_module("bad", module)
    return model


def images(n=4):
    return mr.tensor(np.random.default_rng(0).standard_normal((n, 3, 32, 32)).astype(np.float32))


def loss_of(model):
    return F.cross_entropy(model(images()), np.arange(4))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_the_module_is_named_in_the_forward_pass(layer, value):
    what = "2 NaN" if np.isnan(value) else "2 Inf"
    with mr.detect_anomaly(), pytest.raises(AnomalyError, match=rf"^forward of spoil in {layer}.bad: {what}") as caught:
        loss_of(network(**{layer: Bad(forward=value)}))
    assert (caught.value.phase, caught.value.op, caught.value.path) == ("forward", "spoil", f"{layer}.bad")


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_the_module_is_named_in_the_backward_pass(layer):
    with mr.detect_anomaly():
        loss = loss_of(network(**{layer: Bad(backward=np.nan)}))
        with pytest.raises(AnomalyError, match=rf"backward of spoil in {layer}.bad: 2 NaN in the gradient") as caught:
            loss.backward()
    assert caught.value.phase == "backward"
    assert "the output's gradient (4, " in str(caught.value)


def test_inputs_are_described_and_parameters_named():
    model = network()
    model.layer2[0].conv2.weight.data[0, 0, 0, 0] = np.inf
    with mr.detect_anomaly(), pytest.raises(AnomalyError) as caught:
        loss_of(model)
    said = str(caught.value)
    assert said.startswith("forward of conv2d in layer2.0.conv2: ")
    assert "(layer2.0.conv2.weight had them already); went in: input (4, 32, 16, 16) from 0 to " in said
    assert "layer2.0.conv2.weight (32, 32, 3, 3) from -" in said
    assert said.endswith("with 1 Inf")


def test_bad_images_are_reported_as_inputs():
    x = images()
    x.data[1, 2, 3, 4] = np.nan
    with (
        mr.detect_anomaly(),
        pytest.raises(AnomalyError, match=r"conv2d in conv1: .* NaN .*\(input had them already\)"),
    ):
        network()(x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_code_is_watched():
    x = mr.tensor(np.array([4.0, 0.0]), requires_grad=True)
    with mr.detect_anomaly(), pytest.raises(AnomalyError, match=r"^forward of div: 1 Inf"):
        1 / x
    with mr.detect_anomaly():
        y = F.sqrt(x).sum()
        with pytest.raises(
            AnomalyError, match=r"^backward of sqrt: 1 Inf in the gradient \(2,\) of input; went in: input"
        ):
            y.backward()
    with mr.detect_anomaly(), mr.no_grad(), pytest.raises(AnomalyError):
        F.log(x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_backward_pass_of_an_earlier_graph_is_watched():
    x = mr.tensor(np.array([4.0, 0.0]), requires_grad=True)
    y = F.sqrt(x).sum()
    with mr.detect_anomaly(), pytest.raises(AnomalyError, match=r"^backward of sqrt: "):
        y.backward()


@mr.fusion(False)  # nothing is fused while watched, and fused operations round differently
def test_without_an_anomaly_nothing_changes():
    gradients = []
    for watched in (False, True):
        model = network()
        if watched:
            with mr.detect_anomaly():
                loss_of(model).backward()
        else:
            loss_of(model).backward()
        gradients.append([p.grad.tobytes() for p in model.parameters()])
    assert gradients[0] == gradients[1]


def test_watching_ends_with_the_block_and_blocks_nest():
    with mr.detect_anomaly() as outer:
        with mr.detect_anomaly() as inner, pytest.raises(ShapeError):
            network()(mr.tensor(np.zeros((1, 4, 8, 8), np.float32)))
        assert (watcher(), inner.modules) == (outer, [])
    assert watcher() is None

    @mr.detect_anomaly()
    def depth(n):
        return depth(n - 1) if n else watcher()

    assert depth(2) is not None
    assert watcher() is None


def test_unnamed_modules_are_reported_as_their_parent():
    class Holder(nn.Module):
        def __init__(self):
            self.inner = Listed()

        def forward(self, x):
            return self.inner(x)

    class Listed(nn.Module):
        def __init__(self):
            self.parts = [Bad(forward=np.nan)]  # modules in a list are not registered

        def forward(self, x):
            return self.parts[0](x)

    x = mr.tensor(np.ones(4, np.float32))
    for model, path in ((Holder(), "inner"), (Listed(), "Listed")):
        with mr.detect_anomaly(), pytest.raises(AnomalyError) as caught:
            model(x)
        assert caught.value.path == path


def test_descriptions():
    assert all_finite(np.array([1, 2]))
    assert all_finite(np.full(4, 3e38, np.float32))  # the sum is not finite
    assert not all_finite(np.array([np.inf, -np.inf]))
    assert describe_nonfinite(np.array([np.inf, np.nan])) == "1 NaN and 1 Inf"
    assert describe(np.zeros((0, 3))) == "(0, 3)"
    assert describe(np.array([np.nan])) == "(1,): 1 NaN"
    assert describe(np.array([2, 3])) == "(2,) from 2 to 3"
