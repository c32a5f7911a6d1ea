"""What a recording must not survive, and inputs that say nothing about it: each case against a model without recordings."""

import copy

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import DataError
from minires.optim import SGD

RNG = np.random.default_rng(0)
X, OTHER = (RNG.standard_normal((4, 3, 8, 8)).astype(np.float32) for _ in range(2))
Y = np.array([0, 1, 2, 3])


def plain_step(model, images, labels):
    """(loss, gradients) with nothing recorded."""
    model.zero_grad()
    loss = mr.functional.cross_entropy(model(mr.tensor(images)), labels)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters()]


def checked_step(model, x=X):
    """A step that is in use, of a batch that is the same each time."""
    step = mr.RecordedStep(model.train())
    for _ in range(4):
        step(x, Y)
    assert step.state == "checked"
    return step


def checked_prediction(model, x=X):
    predict = mr.RecordedPrediction(model.eval())
    for _ in range(4):
        predict(x)
    assert predict.state == "checked"
    return predict


def expected(model, x):
    with mr.no_grad(), mr.recording(False):
        return model(mr.tensor(x)).numpy()


NETWORKS = {
    "flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5)),
    "conv, flatten": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    ),
    "linear over channels-last": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Linear(6, 7), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_batch_again_and_again_hides_nothing(name):
    """As when a network learns one batch by heart: what the recording holds of it must not be the next one's."""
    mr.manual_seed(0)
    model = NETWORKS[name]()
    optimizer = SGD(model.parameters(), lr=0.1)
    step = mr.RecordedStep(model)
    for _ in range(6):
        step(X, Y)
        optimizer.step()
    twin = copy.deepcopy(model)
    loss, _ = step(OTHER, Y)
    assert step.state in ("checked", "refused")
    right, gradients = plain_step(twin, OTHER, Y)
    assert float(loss) == pytest.approx(right, rel=1e-6)
    for p, gradient in zip(model.parameters(), gradients):
        np.testing.assert_allclose(p.grad, gradient, rtol=1e-5, atol=1e-7)
    predict = mr.RecordedPrediction(model.eval())
    for _ in range(5):
        predict(X)
    np.testing.assert_array_equal(predict(OTHER).numpy(), expected(model, OTHER))


def test_flattening_is_recorded():
    """Its copy is one of the steps that are run again."""
    mr.manual_seed(0)
    step = checked_step(NETWORKS["flatten"]())
    for x in (X, OTHER):
        assert float(step(x, Y)[0]) == pytest.approx(plain_step(copy.deepcopy(step.model), x, Y)[0], rel=1e-6)
    assert step.state == "checked"


@pytest.mark.parametrize("meanwhile", [mr.detect_anomaly, lambda: mr.fusion(False), lambda: mr.recording(False)])
def test_a_change_that_is_first_seen_where_nothing_is_recorded(meanwhile):
    mr.manual_seed(0)
    model = mr.models.resnet8(width=4)
    step = checked_step(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    statistics = [b.copy() for b in model.buffers()]
    with meanwhile():
        step(X, Y)
    loss = float(step(X, Y)[0])
    assert loss == pytest.approx(plain_step(model, X, Y)[0], rel=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(statistics, model.buffers()))
    predict = checked_prediction(model)
    model.bn1.eps = 0.5
    with meanwhile():
        predict(X)
    np.testing.assert_array_equal(predict(X).numpy(), expected(model, X))


def test_a_change_that_is_seen_as_preparing_fails(monkeypatch):
    mr.manual_seed(0)
    model = mr.models.resnet8(width=4)
    predict = checked_prediction(model)
    for p in model.parameters():
        p.data = p.data * 2
    with monkeypatch.context() as patch:
        patch.setattr(type(predict._recording), "prepare", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict(X)
    np.testing.assert_array_equal(predict(X).numpy(), expected(model, X))
    np.testing.assert_array_equal(predict(X).numpy(), expected(model, X))


def test_statistics_that_are_reset():
    mr.manual_seed(0)
    model = mr.models.resnet8(width=4)
    checked_step(model)  # which moves them
    predict = checked_prediction(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    np.testing.assert_array_equal(predict(X).numpy(), expected(model, X))


def test_gradients_are_those_of_the_recordings_parameters():
    """A plain step in between, with other parts frozen, must not change whose they are."""
    mr.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 5),
    )
    model[1].requires_grad_(False)
    step = checked_step(model)
    step(X, Y)
    right = [p.grad for p in model.parameters()]
    model[0].requires_grad_(False)
    model[1].requires_grad_(True)
    with mr.recording(False):
        step(X, Y)
    model[0].requires_grad_(True)
    model[1].requires_grad_(False)
    step(X, Y)
    for p, gradient in zip(model.parameters(), right):
        assert (p.grad is None) == (gradient is None)
        assert gradient is None or np.array_equal(p.grad, gradient)
    model[0].requires_grad_(False)
    with mr.detect_anomaly():
        step(X, Y)
    model[0].requires_grad_(True)
    step(X, Y)
    assert all((p.grad is None) == (gradient is None) for p, gradient in zip(model.parameters(), right))


class Pair(nn.Module):
    def forward(self, x):
        return x, x * 2


class Text(nn.Module):
    def forward(self, x):
        return "text"


def test_models_that_return_several():
    backbone = nn.Sequential(mr.models.create("resnet8", width=4, features_only=True)).eval()
    predict = mr.RecordedPrediction(backbone)
    for _ in range(4):
        maps = predict(X)
        assert [m.shape for m in maps] == [(4, 4, 8, 8), (4, 8, 4, 4), (4, 16, 2, 2)]
    first, second = mr.RecordedPrediction(Pair().eval())(X)
    assert np.array_equal(2 * first.numpy(), second.numpy())
    with pytest.raises(mr.errors.DtypeError, match="a model returns a Tensor or a list of them, not str"):
        mr.RecordedPrediction(Text().eval())(X)


class Constant(nn.Module):
    """Says that it can be recorded, and computes with NumPy, which is not."""

    recordable = True

    def forward(self, x):
        return x * 2


@pytest.mark.parametrize("value", [X, np.full_like(X, 0.5), np.zeros_like(X)], ids=["noise", "grey", "black"])
@pytest.mark.parametrize("labels", ["same", "others", "zero"])
def test_what_a_recording_holds_is_found_whatever_the_batches_are(value, labels):
    mr.manual_seed(0)
    model = nn.Sequential(Constant(), nn.Flatten(), nn.Linear(192, 5))
    step = mr.RecordedStep(model)
    for i in range(5):
        step(value, {"same": Y, "others": (Y + i) % 5, "zero": 0 * Y}[labels])
    assert step.state == "refused"
    assert float(step(OTHER, Y)[0]) == pytest.approx(plain_step(model, OTHER, Y)[0], rel=1e-6)
    predict = mr.RecordedPrediction(model.eval())
    for _ in range(5):
        predict(value)
    np.testing.assert_array_equal(predict(OTHER).numpy(), expected(model, OTHER))


def test_a_classifier_that_is_replaced_has_other_labels():
    model = mr.models.create("resnet8", num_classes=4, width=4)
    step = mr.RecordedStep(model)
    x = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    for i in range(5):
        step(x + i, np.arange(8) % 4)
    with pytest.raises(DataError, match=r"outside \[0, 4\)"):
        step(x, np.arange(8))
    model.fc = mr.nn.Linear(16, 8)
    for i in range(5):
        _, logits = step(x + i, np.arange(8))
        assert logits.shape == (8, 8)
    with pytest.raises(DataError, match=r"outside \[0, 8\)"):
        step(x, np.arange(8) + 1)
