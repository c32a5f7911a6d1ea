"""What `Trainer.fit` prints in Python."""

import io
import sys

import pytest

from minires.data import Loader


class Terminal(io.StringIO):
    def isatty(self):
        return True


class OutStream(io.StringIO):
    """As the stream of a notebook's kernel, which is no terminal."""

    __module__ = "ipykernel.iostream"


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [
        (Terminal, None, True),
        (OutStream, None, True),
        (io.StringIO, None, False),
        (Terminal, False, False),
        (OutStream, False, False),
        (io.StringIO, True, True),
    ],
)
def test_a_line_an_epoch_where_somebody_reads_it(make_trainer, monkeypatch, capsys, stream, progress, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    trainer = make_trainer(epochs=2)
    trainer.fit(progress=progress)
    lines = sys.stderr.getvalue().splitlines()
    assert len(lines) == (2 if shown else 0)
    for row, line in zip(trainer.history, lines):
        assert line.startswith(f"epoch {row['epoch']}/2  train loss {row['train_loss']:.4f}, acc ")
        assert f"  test loss {row['test_loss']:.4f}, acc {100 * row['test_acc']:.2f} %  " in line
    assert capsys.readouterr().out == ""


def test_validation_is_shown_too(make_trainer, tiny, capsys):
    [row] = make_trainer(epochs=1, val_loader=Loader(tiny[1], 20, shuffle=False)).fit(progress=True)
    assert f"  val loss {row['val_loss']:.4f}, acc {100 * row['val_acc']:.2f} %  " in capsys.readouterr().err


def test_no_standard_error_at_all(make_trainer, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    make_trainer(epochs=1).fit()
