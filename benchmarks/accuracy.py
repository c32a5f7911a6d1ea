"""The trainings whose accuracies README quotes, committed under ``results/accuracy``.

``python -m benchmarks.accuracy --keep minutes20 runs/minutes20-0`` keeps a finished run, beside it the time of this machine's
ResNet-20 step, measured there and then; ``--weights`` its weights too. Of a run that is not finished it keeps what another
machine needs to go on with it. ``--table`` writes the table of README from the finished ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from minires.training import Recipe, RunFolder, draw_curves, read_metrics
from minires.training.sweep import mean_and_deviation

from .cases import MINIRES
from .keep import keep_run
from .machine import environment
from .steps import WARMUP
from .turns import Peer

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "results" / "accuracy", ROOT / "README.md"
BEGIN, END = "<!-- accuracies: python -m benchmarks.accuracy --table -->\n", "<!-- end of accuracies -->\n"
STEP_MS = 120  # of ResNet-20 at batch 128, on the machine that minutes are scaled to


@dataclass(frozen=True)
class Row:
    """What is trained. command: the words after ``minires train``; compared: whose figure it is beside.

    beside: whether other work went on meanwhile, so that the time of the run is the median epoch's times the epochs.
    """

    what: str
    command: str
    compared: str
    beside: bool = False


ROWS = {  # by the folder's name
    "shapes": Row("ResNet-8, built-in images, the defaults", "", "–"),
    "resnet20-he2015": Row("ResNet-20, `he2015`", "--recipe he2015", "91.25 %, He et al. 2015", beside=True),
    "resnet56-he2015-32k": Row(
        "ResNet-56, `he2015` cut to 32k steps",
        "--recipe he2015 --model resnet56 --steps 32000",
        "93.03 % (64k steps)",
        beside=True,
    ),
    "resnet20-long": Row("ResNet-20, `long`", "--recipe long", "92.56 %, a public log", beside=True),
    "minutes5": Row("`minutes5`", "--recipe minutes5", "–"),
    "minutes20": Row("`minutes20`", "--recipe minutes20", "94.0 %, airbench94"),
    "hour1": Row("`hour1`", "--recipe hour1", "95.0 %, airbench95"),
    "evening": Row("`evening`", "--recipe evening", "96.0 %, airbench96"),
}


def keep(name: str, runs: list[Path], weights: bool) -> None:
    """Keep runs as ``results/accuracy/NAME/seed-N``; finished ones with their curves and the machine's facts."""
    finished = any(RunFolder(run).summary.exists() for run in runs)
    machine = {**environment(2), "resnet20_step_ms": round(step_ms(), 1)} if finished else {}
    for run in runs:
        seed = Recipe.read(RunFolder(run).config).seed
        target = RunFolder(RESULTS / name / f"seed-{seed}")
        keep_run(run, target.path, weights)
        if not target.summary.exists():
            continue
        title = f"{ROWS[name].what.replace('`', '')}, seed {seed}"
        draw_curves(read_metrics(target.metrics), target.curves, title)
        (target.path / "machine.json").write_text(json.dumps(machine, indent=2) + "\n", "utf-8")


def step_ms(rounds: int = 5) -> float:
    """Milliseconds of a training step of ResNet-20 at batch 128, on two threads: the median."""
    task = {"job": "train", "peer": MINIRES, "model": "resnet20", "batch": 128}
    with Peer(MINIRES, task, 2) as peer:
        peer.start()
        peer.ask(steps=WARMUP)
        return 1000 * median(second for _ in range(rounds) for second in peer.ask(steps=8)[1:])


def cells(name: str) -> list[str] | None:
    """A row of the table, or None of what has no runs yet."""
    folders = [RunFolder(path.parent) for path in sorted((RESULTS / name).glob("seed-*/summary.json"))]
    if not folders:
        return None
    last = [read_metrics(folder.metrics)[-1] for folder in folders]
    plain = _mean([row["test_acc"] for row in last])
    views = [row["test_views6_acc"] for row in last if "test_views6_acc" in row]
    row = ROWS[name]
    times, scaled = [], []
    for folder in folders:
        machine = json.loads((folder.path / "machine.json").read_text("utf-8"))
        epochs = [epoch["seconds"] for epoch in read_metrics(folder.metrics)]
        times.append((len(epochs) * median(epochs) if row.beside else sum(epochs)) / 60)
        scaled.append(times[-1] * STEP_MS / machine["resnet20_step_ms"])
    seeds = ", ".join(folder.path.name.removeprefix("seed-") for folder in folders)
    minutes = ["≈ " * row.beside + f"{statistics.fmean(values):.1f}" for values in (times, scaled)]
    command = " ".join(["minires train", row.command]).strip()
    link = f"[{row.what}](results/accuracy/{name}) · `{command}`"
    return [link, seeds, plain, _mean(views) if views else "–", *minutes, row.compared]


def _mean(accuracies: list[float]) -> str:
    """In percent, with the standard deviation and the least where there are several."""
    mean, deviation = mean_and_deviation([100 * a for a in accuracies])
    return f"{mean:.2f} %" + (f" ± {deviation:.2f}, least {100 * min(accuracies):.2f}" if len(accuracies) > 1 else "")


def table() -> str:
    """README's table, as Markdown."""
    heads = ["trained", "seeds", "test accuracy", "six views", "minutes", "scaled", "to compare with"]
    rows = [row for row in map(cells, ROWS) if row is not None]
    lines = [heads, ["---", "---", *["---:"] * 4, "---"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page() -> str:
    """README with the table as it is now."""
    text = PAGE.read_text("utf-8")
    before, found, rest = text.partition(BEGIN)
    if not found or END not in rest:
        raise SystemExit(f"{PAGE} has no lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs, for --keep")
    parser.add_argument("--keep", metavar="NAME", choices=ROWS, help=f"keep them as: {', '.join(ROWS)}")
    parser.add_argument("--weights", action="store_true", help="keep their weights too")
    parser.add_argument("--table", action="store_true", help="write README's table")
    given = parser.parse_args()
    if bool(given.runs) != bool(given.keep) or not (given.keep or given.table):
        parser.error("give --keep NAME and the runs to keep, or --table")
    if given.keep:
        keep(given.keep, given.runs, given.weights)
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
