"""A Trainer in a user's own script: what goes wrong there is said at once, and leaves no trace."""

import numpy as np
import pytest
from runs import RECIPE, begin

import minires as mr
from minires import data
from minires.errors import AnomalyError, ConfigError, DataError, RunError
from minires.training import Recorder, Resumed, RunFolder, build_trainer
from minires.training.averaging import EMA, Lookahead
from minires.training.metrics import Mean

pytestmark = pytest.mark.usefixtures("small_runs")


def test_a_step_that_is_refused_leaves_no_trace(make_trainer, tiny):
    trainer = make_trainer(epochs=1)
    trainer.fit()
    buffers = [b.copy() for b in trainer.model.buffers()]
    weights = [p.data.copy() for p in trainer.model.parameters()]
    images, labels = next(iter(data.Loader(tiny[0], 16)))
    images[0, 0, 0, 0] = np.nan
    for _ in range(5):  # recorded by then, if it were not for the NaN
        with pytest.raises(AnomalyError):
            trainer.train_step(images, labels, Mean())
    with pytest.raises(AnomalyError), mr.detect_anomaly():
        trainer.train_step(images, labels, Mean())
    assert all(np.array_equal(a, b) for a, b in zip(buffers, trainer.model.buffers()))
    assert all(np.array_equal(a, p.data) for a, p in zip(weights, trainer.model.parameters()))
    other = mr.models.create("resnet8", num_classes=10)
    trainer.train_step(*next(iter(data.Loader(tiny[0], 16))), Mean())
    trainer.model = other
    with pytest.raises(AnomalyError):
        trainer.train_step(images, labels, Mean())
    assert all(np.isfinite(b).all() for b in other.buffers())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tta": "mirror"}, "unknown views 'mirror'"),
        ({"eval_every": 0}, "eval_every is a number of epochs from 1 up, not 0"),
    ],
)
def test_settings_are_looked_at_before_training(make_trainer, settings, said):
    with pytest.raises(ConfigError, match=said):
        make_trainer(**settings)


def test_a_test_set_that_is_gone_after_the_first_epoch(make_trainer, tiny):
    trainer = make_trainer(epochs=2)
    trainer.test_loader = iter(data.Loader(tiny[1], 16, shuffle=False))
    with pytest.raises(DataError, match="the test loader gave no image: it is gone through after each epoch"):
        trainer.fit()


def test_a_recorder_does_not_write_over_a_run(tmp_path):
    begin(tmp_path / "run", RECIPE)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}

    def record(folder):
        trainer = build_trainer(RECIPE)
        trainer.callbacks = (Recorder(folder, RECIPE),)
        with pytest.raises(RunError) as caught:
            trainer.fit()
        assert trainer.step == 0
        return str(caught.value)

    with RunFolder.open(tmp_path / "run") as folder:
        assert "holds a run after 2 epochs, and the trainer is after 0" in record(folder)
        assert Resumed(folder, more_epochs=1).trainer().fit()
    assert "is not open: give the Recorder what RunFolder.create" in record(RunFolder(tmp_path / "run"))
    assert "lock" in record(folder)  # which is closed
    assert "is not open" in record(RunFolder(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
    assert before["config.toml"] != (tmp_path / "run/config.toml").read_bytes()  # of the longer run


@pytest.mark.parametrize("kind", [EMA, Lookahead])
def test_parts_that_are_trained_later_on_are_averaged_from_then_on(make_trainer, kind):
    trainer = make_trainer(epochs=1)
    mr.training.freeze(trainer.model, ["stem", "layer1"])
    average = kind(trainer.model)
    frozen = set(average.arrays)
    trainer.model.requires_grad_(True)
    for _ in range(5):
        average.step(0.5)
    assert set(average.arrays) > frozen
    before = {name: array.copy() for name, array in trainer.model.state_dict().items()}
    with average.exchanged():
        pass
    assert all(np.array_equal(before[name], array) for name, array in trainer.model.state_dict().items())


def test_an_interrupt_in_the_average_leaves_the_counters_together(tiny):
    recipe = RECIPE.with_settings(average="ema", val=0)
    trainer = build_trainer(recipe)
    step, interrupts = trainer.average.step, [True]

    def interrupted(share):
        if trainer.step == 1 and interrupts and interrupts.pop():
            raise KeyboardInterrupt
        step(share)

    trainer.average.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.step == trainer.schedule.position == trainer.progress.batches == 1
    trainer.fit()
    assert trainer.step == trainer.schedule.position == 6
    assert trainer.epoch == 2
