"""Recorded steps: the same bits as without a recording, and no recording where none can stand for the model."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from recorded_twins import RUNS, Twins, bits, images, labels

import minires as mr
from minires import RecordedStep
from minires import functional as F
from minires.errors import DataError
from minires.kernels.runtime import recording
from minires.models.blocks import BasicBlock, PreActBottleneck
from minires.models.resnet_cifar import CifarPreResNet, CifarResNet
from minires.models.resnet_imagenet import ResNet, ResNetV2


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


def test_an_interrupted_check_moves_no_running_statistics(monkeypatch):
    twins = Twins()
    assert twins.steps(2)[-1] == "recorded"
    before = bits(twins.model.buffers())

    replay = recording.Recording.replay

    def interrupted(self):
        replay(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(recording.Recording, "replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        twins.recorded(images(0), labels(0))
    monkeypatch.undo()
    assert bits(twins.model.buffers()) == before
    assert twins.steps(2) == RUNS[2:4]


def test_another_shape_keeps_no_memory_of_the_recording():
    twins = Twins()
    twins.steps(4, batch=16)
    segments = [weakref.ref(segment) for segment in twins.recorded._recording.pool.segments.values()]
    assert segments
    twins.step(batch=3)
    gc.collect()
    assert all(segment() is None for segment in segments)
