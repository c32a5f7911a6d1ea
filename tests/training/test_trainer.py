import threading

import numpy as np
import pytest
from stop_at import StopAt

import minires as mr
from minires import functional as F
from minires.training import Callback, evaluate

ROW = ["epoch", "lr", "train_loss", "train_acc", "test_loss", "test_acc", "seconds", "images_per_second"]


class Log(Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.events = []

    def on_start(self, trainer):
        self.events.append("start")

    def on_epoch_start(self, trainer):
        self.events.append("epoch start")

    def on_step(self, trainer, mean):
        self.events.append(("step", mean.images))

    def on_evaluation(self, trainer, split, mean):
        self.events.append((split, mean.images))

    def on_epoch(self, trainer, row):
        self.events.append(("epoch", row["epoch"], trainer.epoch, len(trainer.history)))

    def on_end(self, trainer):
        self.events.append("end")


def weights(trainer):
    return [array.tobytes() for array in trainer.model.state_dict().values()]


def test_fit_trains_every_epoch_and_tells_the_callbacks(make_trainer):
    log = Log()
    trainer = make_trainer(epochs=2, callbacks=(log,))
    history = trainer.fit()
    steps = [("step", 16), ("step", 32), ("step", 48), ("test", 16), ("test", 20)]
    expected = ["start"]
    for epoch in (1, 2):
        expected += ["epoch start", *steps, ("epoch", epoch, epoch, epoch)]
    assert log.events == [*expected, "end"]
    assert (trainer.epoch, trainer.step, trainer.finished) == (2, 6, True)
    assert [list(row) for row in history] == [ROW, ROW]
    assert history[0]["lr"] == trainer.schedule.lr_at(2)  # that of the epoch's last step
    assert trainer.fit() == history  # nothing left to do


def test_validation_is_reported_apart(make_trainer, tiny):
    log = Log()
    trainer = make_trainer(epochs=1, callbacks=(log,), val_loader=mr.data.Loader(tiny[1], 20, shuffle=False))
    [row] = trainer.fit()
    assert (row["val_loss"], row["val_acc"]) == pytest.approx((row["test_loss"], row["test_acc"]))
    assert ("val", 20) in log.events


def test_evaluations_now_and_then(make_trainer):
    log = Log()
    rows = make_trainer(epochs=5, callbacks=(log,), eval_every=2).fit()
    assert [row["epoch"] for row in rows if "test_acc" in row] == [2, 4, 5]
    assert log.events.count(("test", 20)) == 3
    every = make_trainer(epochs=5).fit()
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in every]
    assert rows[-1]["test_loss"] == every[-1]["test_loss"]


def test_the_loss_falls(make_trainer):
    history = make_trainer(epochs=6).fit()
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]


def test_same_bits_again_and_on_any_number_of_threads(make_trainer):
    results = []
    for threads in (1, 1, 2):
        mr.set_num_threads(threads)
        trainer = make_trainer(epochs=1)
        history = trainer.fit()
        results.append((weights(trainer), history[0]["train_loss"], history[0]["test_loss"]))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("stop", "epochs", "steps"), [({"step": 2}, 0, 2), ({"step": 4}, 1, 4), ({"epoch": 2}, 1, 6)])
def test_stop_ends_after_the_step_under_way(make_trainer, stop, epochs, steps):
    log = Log()
    trainer = make_trainer(epochs=3, callbacks=(StopAt(**stop), log))
    assert len(trainer.fit()) == epochs
    assert (trainer.epoch, trainer.step, trainer.finished, trainer.stopping) == (epochs, steps, False, False)
    assert log.events[-1] == "end"
    assert not [thread for thread in threading.enumerate() if thread.name == "minires-loader"]


def test_a_failing_callback_ends_training_and_the_loader_thread(make_trainer):
    class Fails(Callback):
        def on_step(self, trainer, mean):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        make_trainer(callbacks=(Fails(),)).fit()
    assert not [thread for thread in threading.enumerate() if thread.name == "minires-loader"]


def test_evaluate_is_the_mean_over_all_images(make_trainer, tiny):
    trainer = make_trainer()
    model = trainer.model
    model.bn1.eval()  # a frozen layer stays frozen
    before = weights(trainer)
    result = evaluate(model, trainer.test_loader)
    assert weights(trainer) == before
    assert model.training
    assert not model.bn1.training

    [(images, labels)] = list(mr.data.Loader(tiny[1], 20, shuffle=False))
    model.eval()
    logits = model(mr.tensor(images))
    assert result.images == 20
    assert result.accuracy == np.mean(logits.numpy().argmax(1) == labels)
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_evaluate_can_be_broken_off_and_restores_the_mode_after_an_error(make_trainer):
    trainer = make_trainer()
    assert evaluate(trainer.model, trainer.test_loader, on_batch=lambda mean: False).images == 16

    def fail(mean):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluate(trainer.model, trainer.test_loader, on_batch=fail)
    assert trainer.model.training
    assert mr.is_grad_enabled()


def test_label_smoothing_counts_in_training_alone(make_trainer):
    plain, smooth = make_trainer(epochs=1, lr=1e-9), make_trainer(epochs=1, lr=1e-9, label_smoothing=0.5)
    [a], [b] = plain.fit(), smooth.fit()
    assert a["train_loss"] != pytest.approx(b["train_loss"], rel=1e-3)
    assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-3)
