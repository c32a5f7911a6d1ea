import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from minires.cli import display
from minires.training import Mean
from minires.training.trainer import Progress

ROW = {"epoch": 1, "lr": 0.123456, "train_loss": 0.5, "train_acc": 1.0, "test_loss": 12.5, "test_acc": 1.0}
ROW |= {"seconds": 1234.5, "images_per_second": 12345.6}


class FakeTrainer(SimpleNamespace):
    """The numbers that a display looks at."""


def trainer(val=False):
    return FakeTrainer(
        train_loader=[0] * 10,
        test_loader=[0] * 5,
        val_loader=[0] * 5 if val else None,
        epochs=100,
        steps=None,
        steps_in_epoch=10,
        epoch=0,
        step=0,
        progress=Progress(),
        history=[],
        stopping=False,
    )


def mean(images=16):
    result = Mean()
    result.total, result.correct, result.images = 0.5 * images, images // 2, images
    return result


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.9, "59.9 s"), (59.97, "1 min 00 s"), (119.6, "2 min 00 s"), (7260, "2 h 01 min")],
)
def test_duration(seconds, text):
    assert display.duration(seconds) == text


def run(out, fake, **row):
    watch = display.watch(out)
    watch.on_start(fake)
    watch.on_epoch_start(fake)
    for step in range(10):
        fake.step += 1
        watch.on_step(fake, mean(16 * (step + 1)))
    for split in ("test", "val") if fake.val_loader else ("test",):
        watch.on_evaluation(fake, split, mean())
    fake.epoch = 1
    fake.history.append({**ROW, **row})
    watch.on_epoch(fake, fake.history[-1])
    watch.on_end(fake)
    watch.close()
    return watch


@pytest.mark.parametrize("val", [False, True])
def test_rows_stand_below_their_names_and_fit_80_characters(val):
    out = Console(file=io.StringIO(), width=200)
    run(out, trainer(val), **({"val_acc": 1.0, "val_loss": 1.0} if val else {}))
    names, values = out.file.getvalue().splitlines()
    assert len(names) == len(values) <= 80
    columns = ["epoch", "lr", "train loss", "train acc", "test loss", "test acc", *["val acc"] * val, "img/s", "time"]
    assert names.split() == " ".join(columns).split()
    assert values.split()[:2] == ["1/100", "0.123"]


def test_plain_output_tells_of_progress_now_and_then(monkeypatch):
    monkeypatch.setattr(display, "PLAIN_EVERY", 0.0)
    out = Console(file=io.StringIO(), width=200)
    run(out, trainer())
    lines = out.file.getvalue().splitlines()
    assert re.fullmatch(r"epoch 1/100, 50%: loss 0\.500  acc 50\.0 %  [\d,]+ images/s  .* left", lines[5]), lines
    assert "\x1b" not in out.file.getvalue()


def test_live_output_shows_progress_and_then_gives_way():
    out = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor", legacy_windows=False)
    watch = run(out, trainer())
    assert isinstance(watch, display.LiveDisplay)
    assert watch.progress.finished or not watch.progress.live.is_started
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.file.getvalue())
    assert "1/100" in text
    assert "100.00 %" in text


def test_close_before_start_is_harmless():
    display.LiveDisplay(Console(file=io.StringIO())).close()


def test_time_left():
    fake = trainer()
    throughput = display.Throughput(fake)
    throughput.start_epoch()
    assert throughput.time_left is None
    throughput.steps, throughput.step_rate, throughput.evaluation = 4, 2.0, 3.0
    assert throughput.time_left == (100 * 10 - 4) / 2.0 + 100 * 3.0
    throughput.evaluation = None
    assert throughput.time_left == (100 * 10 - 4) / 2.0 + 100 * 5 / 6.0
