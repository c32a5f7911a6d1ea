"""Recorded steps and predictions: the same bits as without a recording, and no recording where none can stand for the model."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest

import minires as mr
from minires import RecordedPrediction, RecordedStep
from minires import functional as F
from minires.errors import DataError
from minires.kernels.runtime import recording
from minires.models.blocks import BasicBlock, PreActBottleneck
from minires.models.resnet_cifar import CifarPreResNet, CifarResNet
from minires.models.resnet_imagenet import ResNet, ResNetV2

BATCH, SIZE = 4, 32


def images(seed, batch=BATCH, size=SIZE, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((batch, 3, size, size)).astype(dtype)


def labels(seed, batch=BATCH, classes=10):
    return np.random.default_rng(seed).integers(0, classes, batch)


def make(network=lambda: CifarResNet(8), dtype=np.float32):
    """(model, optimizer), always the same."""
    mr.manual_seed(0)
    model = network().to(dtype)
    return model, mr.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)


def bits(arrays):
    return [None if a is None else np.ascontiguousarray(a).tobytes() for a in arrays]


class Twins:
    """The same training twice, recorded and plain; ``step`` compares every bit of the two."""

    def __init__(self, network=lambda: CifarResNet(8), dtype=np.float32, smoothing=0.0):
        self.dtype, self.smoothing = dtype, smoothing
        self.model, self.optimizer = make(network, dtype)
        self.plain, self.plain_optimizer = make(network, dtype)
        self.recorded = RecordedStep(self.model, smoothing)
        self.seed = 0

    @property
    def both(self):
        return (self.model, self.optimizer), (self.plain, self.plain_optimizer)

    def step(self, batch=BATCH, size=SIZE):
        self.seed += 1
        x, y = images(self.seed, batch, size, self.dtype), labels(self.seed, batch)
        loss, logits = self.recorded(x, y)
        self.plain.zero_grad()
        out = self.plain(mr.Tensor(x))
        expected = F.cross_entropy(out, y, label_smoothing=self.smoothing)
        expected.backward()
        assert bits([loss, logits]) == bits([expected.data, out.data])
        if self.seed % 2:  # nobody has to look at gradients
            assert bits(p.grad for p in self.model.parameters()) == bits(p.grad for p in self.plain.parameters())
        for _, optimizer in self.both:
            optimizer.step()
        states = [model.state_dict() for model, _ in self.both]
        assert bits(states[0].values()) == bits(states[1].values())
        return self.recorded.state

    def steps(self, count, **sizes):
        return [self.step(**sizes) for _ in range(count)]


RUNS = ["waiting", "recorded", "checked", "checked", "checked"]


@pytest.mark.parametrize(
    ("network", "dtype"),
    [
        (lambda: CifarResNet(8), np.float32),
        (lambda: CifarResNet(8), np.float64),
        (lambda: CifarResNet(14, option="B"), np.float32),
        (lambda: CifarResNet(8, option=None, pool="max"), np.float32),
        (lambda: CifarPreResNet(14), np.float32),
        (lambda: CifarPreResNet(11, block=PreActBottleneck, option="B"), np.float32),
        (lambda: ResNet(BasicBlock, depths=(1, 2, 1, 1), num_classes=10), np.float32),
        (lambda: ResNetV2(depths=(1, 1, 1, 1), num_classes=10), np.float32),
    ],
    ids=["resnet8", "float64", "resnet14 B", "plain", "pre-activation", "pre-activation bottleneck", "imagenet", "v2"],
)
def test_training_has_the_same_bits(network, dtype):
    assert Twins(network, dtype, smoothing=0.1).steps(5) == RUNS


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_same_bits_on_any_number_of_threads(threads):
    before = mr.get_num_threads()
    try:
        twins = Twins()
        mr.set_num_threads(threads)
        assert twins.steps(5, batch=16) == RUNS
        mr.set_num_threads(threads + 1)  # there are scratch arrays for each thread: it is recorded again
        assert twins.steps(4, batch=16) == RUNS[:4]
    finally:
        mr.set_num_threads(before)


def test_another_shape_is_recorded_anew():
    twins = Twins()
    assert twins.steps(4) == RUNS[:4]
    assert twins.step(batch=3) == "waiting"
    assert twins.steps(4) == RUNS[:4]
    assert twins.steps(3, size=16) == RUNS[:3]


def hook_on_a_module(model, optimizer, calls):
    model.layer1.register_forward_hook(lambda *_: calls.append(1))


def backward_hook(model, optimizer, calls):
    model.layer2.register_full_backward_hook(lambda *_: calls.append(1))


def hook_on_a_parameter(model, optimizer, calls):
    model.conv1.weight.register_hook(lambda grad: calls.append(1))


@pytest.mark.parametrize("register", [hook_on_a_module, backward_hook, hook_on_a_parameter])
def test_hooks_are_called_in_every_step(register):
    twins, calls = Twins(), []
    twins.steps(4)
    for model, optimizer in twins.both:
        register(model, optimizer, calls)
    twins.steps(4)
    assert len(calls) == 2 * 4


def momentum(model, optimizer):
    model.bn1.momentum = 0.5


def running_average(model, optimizer):
    model.bn1.momentum = None


def other_module(model, optimizer):
    model.layer1 = mr.nn.Identity()


def removed_shortcut(model, optimizer):
    model.layer1[0].downsample = None


def other_array(model, optimizer):
    model.fc.weight.data = model.fc.weight.data * 2


def frozen_stem(model, optimizer):
    model.conv1.weight.requires_grad = False


def evaluation_of_one_norm(model, optimizer):
    model.bn1.eval()


def own_forward(model, optimizer):
    right = type(model.fc).forward
    model.fc.forward = lambda x: right(model.fc, x) * 2


def other_statistics(model, optimizer):
    model.bn1.running_mean = model.bn1.running_mean + 1


def loaded(model, optimizer):
    model.load_state_dict({name: value * 0.5 for name, value in model.state_dict().items()})


def loaded_optimizer(model, optimizer):
    state = optimizer.state_dict()
    optimizer.load_state_dict(
        {**state, "state": {i: {"momentum_buffer": v["momentum_buffer"] * 2} for i, v in state["state"].items()}}
    )


def learning_rate(model, optimizer):
    optimizer.param_groups[0]["lr"] = 0.5


def no_momentum(model, optimizer):
    optimizer.param_groups[0].update(momentum=0.0, nesterov=False)


def written_weights(model, optimizer):
    model.conv1.weight.data[...] *= 2


CHANGES = [
    momentum, running_average, other_module, removed_shortcut, other_array, frozen_stem, evaluation_of_one_norm, own_forward,
    other_statistics, loaded, loaded_optimizer, learning_rate, no_momentum, written_weights,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changes_take_effect_at_once(change):
    twins = Twins()
    assert twins.steps(4)[-1] == "checked"
    for model, optimizer in twins.both:
        change(model, optimizer)
    twins.steps(4)


def test_settings_of_the_thread_take_effect_at_once():
    twins = Twins()
    for context in (
        lambda: mr.recording(False),
        lambda: mr.backend("reference"),
        lambda: mr.fusion(False),
        lambda: mr.winograd(False),
    ):
        assert twins.steps(4)[-1] == "checked"
        with context():
            twins.steps(4)
    assert twins.steps(4)[-1] == "checked"


def test_a_watcher_sees_every_operation():
    twins = Twins()
    twins.steps(4)
    twins.model.conv1.weight.data[...] = np.nan
    with pytest.raises(mr.errors.AnomalyError, match="conv"), mr.detect_anomaly():
        twins.recorded(images(0), labels(0))


class Noise(mr.nn.Module):
    def forward(self, x):
        return x * float(np.random.default_rng().random())


class Keeps(mr.nn.Module):
    recordable = True  # which is not true: it keeps what a recording will overwrite

    def forward(self, x):
        self.__dict__["last"] = x.data
        return x


class Calls(mr.nn.Module):
    recordable = True  # which is not true either: NumPy's sum is not recorded

    def forward(self, x):
        return x * mr.Tensor(np.asarray(1 + abs(x.data.mean()), x.dtype))


class Doubled(mr.nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("module", "state"),
    [
        (mr.nn.Dropout(0.5), "waiting"),
        (Noise(), "waiting"),
        (Doubled(16), "waiting"),
        (Keeps(), "refused"),
        (Calls(), "refused"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_recording_cannot_stand_for_is_not_recorded(module, state):
    network = mr.nn.Sequential(mr.nn.Conv2d(3, 16, 3, bias=False), module, mr.nn.AdaptiveAvgPool2d(1), mr.nn.Flatten())
    step = RecordedStep(network)
    seen = []
    for i in range(5):
        loss, _ = step(images(i, size=64), labels(i, classes=16))
        assert np.isfinite(loss)
        seen.append(network[1].__dict__.get("last"))
    assert step.state == state
    assert bool(step.reason) == (state == "refused")
    kept = [a for a in seen if a is not None]
    assert len({a.tobytes() for a in kept}) == len(kept)  # none of them was overwritten


def test_what_a_step_returned_does_not_change():
    twins = Twins()
    twins.steps(4)
    loss, logits = twins.recorded(images(1), labels(1))
    gradients = [p.grad for p in twins.model.parameters()]
    before = bits([loss, logits, *gradients])
    twins.recorded(images(2), labels(2))
    assert bits([loss, logits, *gradients]) == before
    assert bits(p.grad for p in twins.model.parameters()) != before[2:]


def test_a_gradient_can_be_added_to():
    twins = Twins()
    twins.steps(4)
    for model in (twins.model, twins.plain):
        model.zero_grad()
    twins.recorded(images(1), labels(1))
    F.cross_entropy(twins.plain(mr.Tensor(images(1))), labels(1)).backward()
    for model in (twins.model, twins.plain):
        F.cross_entropy(model(mr.Tensor(images(2))), labels(2)).backward()
    assert bits(p.grad for p in twins.model.parameters()) == bits(p.grad for p in twins.plain.parameters())


def test_wrong_labels_are_refused_and_harm_nothing():
    twins = Twins()
    for count in (0, 1, 1, 1, 1):
        twins.steps(count)
        before = bits(twins.model.state_dict().values()) if twins.recorded.state == "checked" else None
        with pytest.raises(DataError, match=r"label 10 of sample 1 is outside \[0, 10\)"):
            twins.recorded(images(0), np.array([0, 10, 1, 2]))
        if before is not None:
            assert bits(twins.model.state_dict().values()) == before
        twins.plain.load_state_dict(twins.model.state_dict())  # the forward pass has moved the running statistics


@pytest.mark.parametrize("moment", [0, 3, 7])
def test_an_interrupted_replay_harms_nothing(moment, monkeypatch):
    twins = Twins()
    twins.steps(4)
    state = {name: value.copy() for name, value in twins.model.state_dict().items()}
    count, right = 0, recording.threads.ready

    def interrupted(threads):
        nonlocal count
        count += 1
        if count > moment:
            raise KeyboardInterrupt
        return right(threads)

    monkeypatch.setattr(recording.threads, "ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        twins.recorded(images(0), labels(0))
    monkeypatch.undo()
    twins.model.load_state_dict(state)
    assert twins.steps(3)[-1] == "checked"


def test_another_label_smoothing_takes_effect_at_once():
    twins = Twins()
    assert twins.steps(4)[-1] == "checked"
    twins.smoothing = twins.recorded.label_smoothing = 0.3
    assert twins.steps(4) == RUNS[:4]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copy", "pickle"]
)
def test_a_copy_goes_its_own_way(duplicate):
    twins = Twins()
    twins.steps(4)
    other = duplicate(twins.recorded)
    before = bits(other.model.state_dict().values())
    assert other.state == "waiting"
    assert twins.steps(2)[-1] == "checked"
    assert bits(other.model.state_dict().values()) == before
    other(images(1), labels(1))


# --- predictions


def plain(model, x):
    with mr.no_grad():
        return model(mr.Tensor(x)).data


def trained(network=lambda: CifarResNet(8)):
    """A model in evaluation mode whose running statistics are not those it began with."""
    model, optimizer = make(network)
    for i in range(2):
        F.cross_entropy(model(mr.Tensor(images(i))), labels(i)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize(
    "network",
    [
        lambda: CifarResNet(8),
        lambda: CifarResNet(8, option="B"),
        lambda: CifarPreResNet(8),
        lambda: CifarPreResNet(11, block=PreActBottleneck),
        lambda: ResNet(BasicBlock, depths=(1, 1, 1, 1), num_classes=10),
        lambda: ResNetV2(depths=(1, 1, 1, 1), num_classes=10),
    ],
    ids=["resnet8", "resnet8 B", "pre-activation", "bottleneck", "imagenet", "v2"],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_predictions_have_the_same_bits(network, batch):
    model = trained(network)
    predict = RecordedPrediction(model)
    kept = []
    for i in range(5):
        y = predict(images(i, batch))
        kept.append((y, plain(model, images(i, batch))))
        assert predict.state == RUNS[i]
        assert not y.requires_grad
    for y, expected in kept:
        assert bits([y.data]) == bits([expected])


def optimizer_step(model):
    optimizer = mr.optim.SGD(model.parameters(), 0.5)
    F.cross_entropy(model(mr.Tensor(images(0))), labels(0)).backward()
    optimizer.step()


def half(model):
    model.load_state_dict({name: value * 0.5 for name, value in model.state_dict().items()})


def training_between(model):
    model.train()
    F.cross_entropy(model(mr.Tensor(images(5))), labels(5))
    model.eval()


def new_buffer(model):
    model.bn1.running_var = model.bn1.running_var * 3


@pytest.mark.parametrize("change", [optimizer_step, half, training_between, new_buffer], ids=lambda f: f.__name__)
def test_predictions_follow_the_weights(change):
    model = trained()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    before = predict(images(0)).data
    change(model)
    for i in range(4):
        assert bits([predict(images(i)).data]) == bits([plain(model, images(i))])
    assert bits([before]) != bits([predict(images(0)).data])


def test_refresh_sees_what_numpy_has_written():
    model = trained()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    model.conv1.weight.data[...] *= 1.5
    model.bn1.running_mean[...] += 1
    predict.refresh()
    assert bits([predict(images(0)).data]) == bits([plain(model, images(0))])


def test_threads_may_share_a_prediction():
    model = trained()
    predict = RecordedPrediction(model)
    expected = [plain(model, images(i)).tobytes() for i in range(4)]
    wrong = []

    def work(i):
        for _ in range(30):
            if predict(images(i)).data.tobytes() != expected[i]:
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_model_in_training_mode_is_not_recorded():
    model = trained().train()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    assert predict.state == "waiting"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_can_go_on():
    model = trained()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    expected = plain(model, images(9)).tobytes()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if predict(images(9)).data.tobytes() == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert predict(images(9)).data.tobytes() == expected
