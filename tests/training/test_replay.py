"""A loss or a gradient that is not finite ends the run with an explanation, and with the batch in a file."""

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import AnomalyError, DataError
from minires.tensor import Op
from minires.training import Callback, Checkpoint, Recipe, Recorder, Resumed, RunFolder, replay
from minires.training import build as build_module
from minires.training.diagnosis import Batch, diagnose
from minires.training.replay import load_anomaly

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, weight_decay=1e-4, decay_norms=True)  # as make_trainer has it


class Break(Callback):
    """After a step, ruins something of the trainer's."""

    def __init__(self, step, ruin):
        self.at_step, self.ruin = step, ruin

    def on_step(self, trainer, mean):
        if trainer.step == self.at_step:
            self.ruin(trainer)


class Overflow(Op):
    """y = x. dx is not finite."""

    def forward(self, x):
        return x

    def backward(self, dy, needs):
        return (dy * np.float32(np.inf),)


class Explosive(nn.Module):
    """The identity, whose gradient overflows once it is armed."""

    armed = False

    def forward(self, x):
        return Overflow().apply(x) if self.armed else x


def put_nan(trainer):
    trainer.model.layer2[0].conv1.weight.data[0] = np.nan


def arm(trainer):
    trainer.model.layer3.bomb.armed = True


@pytest.fixture
def train(make_trainer, tmp_path):
    """A function that trains into a folder until it breaks: (trainer, folder, error)."""

    def call(*callbacks, change=None, **more):
        folder = RunFolder.create(RECIPE, tmp_path / "run")
        trainer = make_trainer(callbacks=(Recorder(folder, RECIPE), *callbacks), **more)
        if change:
            change(trainer)
        with pytest.raises(AnomalyError) as caught:
            trainer.fit()
        folder.close()
        return trainer, folder, caught.value

    return call


def test_a_loss_that_is_not_finite_stops_the_run(train):
    trainer, folder, error = train(Break(4, put_nan))
    assert str(error).startswith("in step 5 (epoch 2) the loss is nan. forward of conv2d in layer2.0.conv1: ")
    assert "layer2.0.conv1.weight had them already" in str(error)
    assert (error.phase, error.path) == ("forward", "layer2.0.conv1")
    assert trainer.step == 4
    assert Checkpoint.load(folder.last).info["epoch"] == 1  # that of before


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_are_touched(train):
    def lay(trainer):
        trainer.model.layer3.add_module("bomb", Explosive())

    before = []
    keep = Break(4, lambda trainer: before.append([p.data.tobytes() for p in trainer.model.parameters()]))
    trainer, _, error = train(Break(4, arm), keep, change=lay)
    assert (
        "in step 5 (epoch 2) the gradient of conv1.weight is not finite. backward of overflow in layer3.bomb: "
        in str(error)
    )
    assert [p.data.tobytes() for p in trainer.model.parameters()] == before[0]


def test_a_learning_rate_far_too_high_is_found_out(train):
    _, folder, error = train(lr=1e30, epochs=1)
    assert "(epoch 1) the loss is " in str(error)
    assert error.phase == "forward"
    assert not folder.last.exists()
    assert folder.anomaly.exists()


def test_an_evaluation_that_is_not_finite(train):
    _, folder, error = train(Break(6, lambda t: t.model.bn1.running_mean.fill(np.nan)))
    said = "in the evaluation after step 6 (epoch 2) the loss on the test images is not finite. forward of batchnorm in bn1"
    assert str(error).startswith(said)
    _, _, batch, _ = load_anomaly(folder.anomaly)
    assert not batch.training
    with pytest.raises(AnomalyError, match="batchnorm in bn1"):
        replay(folder.anomaly)


def test_weights_that_are_not_finite_are_never_saved(train):
    def ruin(trainer):  # where no loss shows it
        trainer.model.register_buffer("spare", np.array([np.inf], np.float32))

    _, folder, error = train(Break(4, ruin))
    assert str(error) == "spare is not finite after step 6 (epoch 2)"
    assert Checkpoint.load(folder.last).info["epoch"] == 1


def test_an_overflow_that_is_nobodys_is_told_as_such(make_trainer):
    trainer = make_trainer()
    hook = trainer.model.fc.weight.register_hook(lambda dw: dw * np.float32(np.inf))
    with pytest.raises(AnomalyError, match=r"gradient of fc.weight is not finite\. no single operation did it"):
        trainer.fit()
    hook.remove()


def test_the_batch_is_there_to_be_replayed(train):
    trainer, folder, error = train(Break(4, put_nan))
    with pytest.raises(AnomalyError) as caught:
        replay(folder.anomaly)
    assert str(error).endswith(str(caught.value))
    _, model, batch, info = load_anomaly(folder.anomaly)
    assert (batch.images.shape, batch.labels.shape) == ((16, 3, 32, 32), (16,))
    assert (info["step"], info["epoch"], info["said"]) == (4, 1, str(error))
    loader = trainer.train_loader
    loader.set_epoch(1)
    images, labels = list(loader)[1]
    np.testing.assert_array_equal(batch.images, images)
    np.testing.assert_array_equal(batch.labels, labels)
    model.layer2[0].conv1.weight.data[0] = 0.1
    assert diagnose(model, batch) is None  # mended


def test_a_checkpoint_is_no_batch(make_trainer, tmp_path):
    with RunFolder.create(RECIPE, tmp_path / "run") as folder:
        make_trainer(epochs=1, callbacks=(Recorder(folder, RECIPE),)).fit()
    with pytest.raises(DataError, match=r"holds no batch to replay: give the anomaly.safetensors"):
        replay(folder.last)


def test_a_run_that_broke_goes_on_from_before(train, monkeypatch, tiny):
    """Here the cause is gone, as after a fault of the machine; else it would come to the same point again."""
    _, folder, _ = train(Break(4, put_nan))
    monkeypatch.setattr(build_module.data, "load", lambda name, data_dir, seed: tiny)
    with RunFolder.open(folder.path) as folder:
        trainer = Resumed(folder).trainer()
        assert (trainer.epoch, trainer.step) == (1, 3)
        assert len(trainer.fit()) == 2


def test_dropout_is_replayed_with_the_same_mask(tiny):
    mr.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 10))
    images = np.ones((2, 3, 32, 32), np.float32)
    rng_state = mr.random.get_rng_state()
    mask = model[1](mr.tensor(np.ones((2, 3072), np.float32))).numpy()
    batch = Batch(images * np.float32(2e38), np.zeros(2, np.int64), rng_state)
    after = mr.random.get_rng_state()
    error = diagnose(model, batch)
    assert error is not None
    assert f"{np.count_nonzero(mask):,} Inf" in str(error)  # 2e38 / (1 - p) overflows where it is not dropped
    assert mr.random.get_rng_state() == after
