"""A Trainer in a user's own script: what goes wrong there is said at once, and leaves no trace."""

import numpy as np
import pytest
from PIL import Image
from runs import RECIPE, begin

import minires as mr
from minires import data
from minires.errors import AnomalyError, ConfigError, DataError, DtypeError, RunError
from minires.optim import SGD, ErrorWarmup, LinearWarmup, MultiStepLR
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


def test_a_classifier_that_is_replaced_has_other_labels(tiny):
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


def test_schedules_that_need_the_error_are_outermost():
    optimizer = SGD(mr.nn.Linear(2, 2).parameters(), lr=0.1)
    inner = ErrorWarmup(MultiStepLR(optimizer, [10]), 0.1)
    for make in (lambda: LinearWarmup(inner, 5), lambda: ErrorWarmup(inner, 0.1)):
        with pytest.raises(
            ConfigError, match="of an ErrorWarmup would not tell it the errors: put the ErrorWarmup outside"
        ):
            make()
    assert ErrorWarmup(LinearWarmup(MultiStepLR(optimizer, [10]), 5), 0.1).lr_at(0) > 0


GREY = np.full((8, 8), 0.5, np.float32)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        Image.fromarray((GREY * 60_000).astype(np.uint16)),
        Image.fromarray((GREY * 9).astype(np.int32)),
    ],
    ids=["F", "I;16", "I"],
)
def test_pictures_of_wide_grey_levels_are_not_black(image):
    """Pillow would clip them to 0 … 255."""
    with pytest.raises(
        DtypeError, match=r"a Pillow image of mode \S+, which does not say what white is: scale it to uint8"
    ):
        data.MapDataset([(image, 0)])


def test_parts_have_the_classes_of_the_whole():
    image = np.zeros((4, 4, 3), np.uint8)
    whole = data.MapDataset([(image, 9 if i == 3 else i % 2) for i in range(20)])
    assert {part.num_classes for part in whole.hold_out(5)} == {10}
    assert whole.take(np.array([0, 1])).num_classes == 10
    for label in (10**12, 2**70, -1):
        with pytest.raises(DataError, match=f"sample 1 has label {label}; labels are integers from 0 to 1,048,575"):
            assert data.MapDataset([(image, 0), (image, label)]).labels


def test_statistics_and_names_that_are_given_count():
    images, labels = np.zeros((4, 4, 4, 3), np.uint8), np.arange(4)
    samples = list(zip(images, labels))
    with pytest.raises(ConfigError, match="mean and std go together"):
        data.Dataset(images, labels, "abcd", "x", mean=[0.5] * 3)
    for given in ({"mean": [0.5] * 3}, {"std": [0.5] * 3}):
        with pytest.raises(ConfigError, match="mean and std go together"):
            data.MapDataset(samples, **given)
    assert data.MapDataset(samples, classes=np.array(["a", "b", "c", "d"])).classes == ("a", "b", "c", "d")
    assert data.MapDataset(samples, classes=[10, 20, 30, 40]).classes == ("10", "20", "30", "40")
