"""The experiments of ``minires lab`` on CIFAR-10, whose results are committed under ``results/lab/``.

``python -m benchmarks.lab --networks runs/lab`` keeps what ``minires lab train`` has trained, without the optimizer's state;
``python -m benchmarks.lab --data-dir ~/cifar`` runs the experiments that have no result yet, or those that are named;
``python -m benchmarks.lab --table`` writes the tables of docs/lab.md from them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from minires.lab.catalogue import EXPERIMENTS, read
from minires.lab.networks import NETWORKS
from minires.training import RunFolder, read_metrics

from .keep import keep_run

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "lab"
PAGE = ROOT / "docs" / "lab.md"
BEGIN, END = "<!-- {}: python -m benchmarks.lab --table -->\n", "<!-- end of {} -->\n"  # of a table that is made
SHOWN = "<!-- what it shows -->\n"  # in the page of a result, before what people have written

PAPER = re.compile(r"[A-Z][\w’'-]+(?: et al\.| & [A-Z][\w-]+)? \d{4}")  # as claims cite it

WITHOUT_WEIGHTS = ("plain110-w8",)  # degradation reads its metrics, and nothing else looks at it

N = "results/lab/networks"
RUNS = {  # the folder of a result → the words after `minires lab`
    "paths": f"paths --run {N}/resnet56 --batch-size 64",
    "paths-single": f"paths --run {N}/resnet110-w8 --batch-size 8 --samples 50",
    "split": f"split --run {N}/resnet56 --batch-size 128",
    "split-v2": f"split --run {N}/preresnet56 --batch-size 128",
    "refine": f"refine --run {N}/resnet56 --batch-size 256",
    "flow": "flow --dataset cifar10 --steps 300 --seed 1",
    "truncate": "truncate --dataset cifar10",
    "cut": "cut --dataset cifar10 --model resnet56 --steps 2000",
    "bugs": "bugs --dataset cifar10",
    "shatter": "shatter",
    "identity": "identity --dataset cifar10 --batch-size 64",
    "degradation": f"degradation --trained {N}",
    "construct": f"construct --run {N}/plain20 --deeper {N}/plain56 --auxiliary {N}/plain56-aux",
    "deepen": "deepen --dataset cifar10 --steps 10000",
    "lesion": f"lesion --run {N}/resnet56 --plain {N}/plain56",
    "lesion-20": f"lesion --run {N}/resnet20 --plain {N}/plain20",
    "shortcuts": "shortcuts --dataset cifar10 --trainings 3",
    "spectrum": "spectrum --dataset cifar10",
    "responses": f"responses --run {N}/resnet20 --plain {N}/plain20 --deeper {N}/resnet56",
    "landscape": f"landscape --run {N}/resnet56 --plain {N}/plain56 --points 21",
}


def keep_networks(trained: Path) -> None:
    """Copy the complete runs of ``minires lab train``: recipe, metrics, summary and, of most, the weights."""
    for name in NETWORKS:
        source = RunFolder(trained / name)
        if source.summary.exists():
            keep_run(source.path, RESULTS / "networks" / name, name not in WITHOUT_WEIGHTS)
        else:
            print(f"{source} is not complete: left out")


def run(name: str, data_dir: str | None) -> None:
    """Run an experiment into its folder, and write the page beside its result."""
    words = ["lab", *RUNS[name].split()]
    where = [] if data_dir is None or words[1] == "shatter" else ["--data-dir", data_dir]
    print(f"minires {' '.join(words)}", flush=True)
    out = ["--out", str(RESULTS / name)]
    subprocess.run([sys.executable, "-m", "minires", *words, *where, *out], cwd=ROOT, check=True)
    (RESULTS / name / "landscape-rows.json").unlink(missing_ok=True)  # which is for going on
    write_page(name)


def result_of(name: str):
    """The committed result of an experiment."""
    return read((RESULTS / name / "result.json").read_text("utf-8"))


def write_page(name: str) -> None:
    """README.md in the folder of a result; what people have written below SHOWN stays."""
    page, result = RESULTS / name / "README.md", result_of(name)
    written = page.read_text("utf-8").partition(SHOWN)[2] if page.exists() else ""
    about, (word, because) = result.about, result.verdict
    lines = [
        f"# {about.name}: {about.summary}\n",
        f"`minires lab {RUNS[name]}`\n",
        f"The paper: {about.claim}.\n",
        f"**{word[0].upper()}{word[1:]}**: {because}.\n",
        f"The rule: {about.rule}.\n",
        f"![{about.summary}](picture.png)\n",
    ]
    page.write_text("\n".join(lines) + f"\n{SHOWN}{written}", "utf-8")


def table() -> str:
    """Experiment, paper, claim and verdict of all results, as Markdown."""
    order = list(EXPERIMENTS)
    names = [name for name in RUNS if (RESULTS / name / "result.json").exists()]
    rows = ["| experiment | paper | the claim | here |", "| --- | --- | --- | --- |"]
    for name in sorted(names, key=lambda name: order.index(result_of(name).about.name)):
        result = result_of(name)
        word, because = result.verdict
        link, claim = f"[`{name}`](../results/lab/{name}/README.md)", result.about.claim
        cells = [link, PAPER.findall(claim)[0], claim, f"**{word}**: {because}"]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def table_of_networks() -> str:
    """What became of the trained networks, as Markdown."""
    rows = [
        "| network | parameters | last training loss | training accuracy | test accuracy |",
        "| --- |" + " ---: |" * 4,
    ]
    for name in NETWORKS:
        folder = RunFolder(RESULTS / "networks" / name)
        if not folder.summary.exists():
            continue
        summary, last = json.loads(folder.summary.read_text("utf-8")), read_metrics(folder.metrics)[-1]
        accuracies = f"{last['train_acc']:.2%} | {summary['final_test_acc']:.2%}".replace("%", " %")
        rows.append(f"| {name} | {summary['params']:,} | {last['train_loss']:.3f} | {accuracies} |")
    return "\n".join(rows) + "\n"


def docs_page() -> str:
    """docs/lab.md with the tables that are made."""
    text = PAGE.read_text("utf-8")
    for what, rows in (("networks", table_of_networks()), ("results", table())):
        begin, end = BEGIN.format(what), END.format(what)
        before, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"{PAGE} has no line {begin.strip()}")
        text = f"{before}{begin}\n{rows}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)}; by default those without a result"
    )
    parser.add_argument("--data-dir", help="where CIFAR-10 is, as of minires lab")
    parser.add_argument("--networks", type=Path, metavar="FOLDER", help="keep what minires lab train trained there")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/lab.md, and run nothing")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in RUNS]
    if unknown:
        parser.error(f"no experiment {', '.join(unknown)}: choose of {', '.join(RUNS)}")
    if given.networks is not None:
        keep_networks(given.networks)
    elif not given.table:
        for name in given.names or [name for name in RUNS if not (RESULTS / name / "result.json").exists()]:
            run(name, given.data_dir)
    PAGE.write_text(docs_page(), "utf-8")


if __name__ == "__main__":
    main()
