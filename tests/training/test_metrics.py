import json
import math

import numpy as np
import pytest

from minires.errors import DataError
from minires.training import Confusion, Mean, draw_curves, read_metrics
from minires.training.metrics import append_metrics, known, repair_metrics, write_summary


def test_means_are_weighted_by_the_images_of_a_batch():
    mean = Mean()
    assert math.isnan(mean.loss)
    assert math.isnan(mean.accuracy)
    mean.add(1.0, np.eye(3, dtype=np.float32), np.array([0, 1, 2]))
    mean.add(5.0, np.eye(3, dtype=np.float32)[:1], np.array([2]))
    assert (mean.loss, mean.accuracy, mean.images) == (2.0, 0.75, 4)


def test_confusion_counts_which_was_taken_for_which():
    confusion = Confusion(3)
    confusion.add(1.0, np.eye(3, dtype=np.float32)[[0, 1, 1, 1]], np.array([0, 2, 2, 1]))
    np.testing.assert_array_equal(confusion.counts, [[1, 0, 0], [0, 1, 0], [0, 2, 0]])
    assert confusion.accuracy == 0.5


def test_metrics_are_appended_and_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"epoch": 1, "train_loss": 1.23456789, "lr": 1e-9})
    append_metrics(path, {"epoch": 2, "train_loss": math.nan, "lr": math.inf})
    assert read_metrics(path) == [
        {"epoch": 1, "train_loss": 1.23457, "lr": 1e-9},
        {"epoch": 2, "train_loss": None, "lr": None},  # JSON has no NaN
    ]


def test_a_torn_line_is_named(tmp_path, page):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2, is not a JSON object") as caught:
        read_metrics(path)
    page(str(caught.value))


@pytest.mark.parametrize(
    "line", [b'{"epoch": "\xff"}', b"[" * 100_000, b'{"epoch": ' + b"9" * 400 + b"}", b"[1, 2]"], ids=range(4)
)
def test_damaged_lines_are_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line + b"\n")
    for read in (read_metrics, lambda path: repair_metrics(path, 1)):
        with pytest.raises(DataError, match=r"metrics.jsonl, line 1, is not "):
            read(path)


def test_a_row_that_does_not_fit_the_disk_leaves_no_half_of_it(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"epoch": 1})
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*metrics.jsonl"):
        append_metrics(path, {"epoch": 2})
    assert path.read_text() == '{"epoch": 1}\n'


def test_a_row_of_which_a_part_fits_leaves_no_part_of_it(tmp_path):
    """As on a disk that is full in the middle of the row."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
    try:
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            append_metrics(path, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == '{"epoch": 1}\n'


ROWS = b'{"epoch": 1, "seconds": 1}\n{"epoch": 2, "seconds": 1}\n{"epoch": 3, "seconds": 1}\n'


@pytest.mark.parametrize("length", range(len(ROWS) + 1))
def test_a_file_cut_anywhere_is_repaired_as_far_as_a_checkpoint_needs_it(tmp_path, length):
    path = tmp_path / "metrics.jsonl"
    whole = ROWS[:length].count(b"\n")
    for epochs in range(4):
        path.write_bytes(ROWS[:length])
        if epochs <= whole:
            assert repair_metrics(path, epochs) == [{"epoch": n + 1, "seconds": 1} for n in range(epochs)]
            assert path.read_bytes() == b"".join(ROWS.splitlines(True)[:epochs])
        else:
            with pytest.raises(DataError, match=r"metrics.jsonl(, line \d, is not the row of epoch \d| has \d rows)"):
                repair_metrics(path, epochs)


def test_rows_that_are_out_of_order_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = '{"epoch": 1, "seconds": 1}\n'
    for second in (row, '{"epoch": 2}\n', '{"epoch": 2, "seconds": null}\n'):
        path.write_text(row + second)
        with pytest.raises(DataError, match="line 2, is not the row of epoch 2"):
            repair_metrics(path, 2)
    assert repair_metrics(tmp_path / "nowhere", 0) == []


def test_epochs_with_a_number():
    rows = [{"epoch": 1}, {"epoch": 2, "test_acc": 0.5}, {"epoch": 3, "test_acc": None}, {"epoch": 4, "test_acc": 1}]
    assert known(rows, "test_acc") == ([2, 4], [0.5, 1.0])
    assert known(rows, "val_acc") == ([], [])


def test_summary(tmp_path):
    write_summary(tmp_path / "summary.json", {"model": "resnet8", "final_test_acc": 0.5})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"model": "resnet8", "final_test_acc": 0.5}


@pytest.mark.parametrize("epochs", [1, 2, 40])
@pytest.mark.parametrize("val", [False, True])
def test_curves(tmp_path, epochs, val):
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "train_loss": 1 / epoch, "train_acc": 0.5, "test_loss": None, "test_acc": 0.4}
        rows.append({**row, "val_loss": 0.1, "val_acc": 0.3} if val else row)
    draw_curves(rows, tmp_path / "curves.png", "resnet8 on shapes")
    data = (tmp_path / "curves.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000
