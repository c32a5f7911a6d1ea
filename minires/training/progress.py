"""What ``Trainer.fit`` prints in Python: a line for each epoch on standard error. The command line has its own display."""

import sys
from typing import Any


def is_watched() -> bool:
    """Whether somebody reads standard error as it is written: it is a terminal, or the output of a notebook's cell."""
    stream = sys.stderr
    if stream is None:  # of a Windows program without a console
        return False
    return type(stream).__module__.startswith("ipykernel.") or stream.isatty()


def print_epoch(row: dict[str, Any], epochs: int) -> None:
    """Print an epoch's metrics, a row of ``Trainer.history``, in a line."""
    print(epoch_line(row, epochs), file=sys.stderr, flush=True)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """The text that ``print_epoch`` prints.

    >>> metrics = {"train_loss": 0.5, "train_acc": 0.75, "test_loss": 1.25, "test_acc": 0.5, "seconds": 3.0}
    >>> epoch_line({"epoch": 2, **metrics}, 10)
    'epoch  2/10  train loss 0.5000, acc 75.00 %  test loss 1.2500, acc 50.00 %  3.0 s'
    """
    line = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
    for split in ("train", "test", "val"):
        if f"{split}_loss" in row:
            line += f"  {split} loss {row[f'{split}_loss']:.4f}, acc {100 * row[f'{split}_acc']:.2f} %"
    return f"{line}  {row['seconds']:.1f} s"
