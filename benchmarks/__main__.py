"""``python -m benchmarks``: the command line."""

import argparse
import json
import os
import sys
from pathlib import Path

from . import kernels, machine, memory, report, startup, steps
from .cases import INFERENCE_PEERS, TRAIN_PEERS, Case
from .settings import Settings
from .turns import PeerError, say

PARTS = {**steps.PARTS, **kernels.PARTS, **memory.PARTS, **startup.PARTS}
PEERS = tuple(dict.fromkeys((*TRAIN_PEERS, *INFERENCE_PEERS)))
EPILOG = """
parts:
  train       training steps: ResNet-20, -56, pre-activation 110 at batch 128; ResNet-20 at 32 and 512;
              ResNet-18 on 224 x 224 at batch 8
  inference   the same networks in eval mode, beside ONNX Runtime too
  avx2        ResNet-20's training step, minires and PyTorch held to AVX2
  one-thread  the same on one thread
  scaling     the same on 1, 2, 4, ... threads
  kernels     convolutions by themselves: GFLOP/s, share of the machine's measured peak
  memory      peak memory of training steps; 1,000 steps in a row
  startup     import, first step ever, first step of a new process

examples:
  python -m benchmarks                                everything; long (every step is timed 20 times): leave the machine alone
  python -m benchmarks --quick                        a short look at everything
  python -m benchmarks train --cases resnet20:128     one network
  python -m benchmarks train --peers "PyTorch NCHW" "PyTorch compile" --rounds 3
  python -m benchmarks kernels --roofline roofline.png
  python -m benchmarks train inference --json run.json     parts already in the file stay, those named are replaced
  python -m benchmarks --from run.json                the tables of a run, without running anything

The peers (PyTorch, ONNX Runtime, JAX) come with: pip install -e ".[bench]". One that is not installed is left out, with a
word. Progress goes to standard error, the tables, in Markdown, to standard output.
"""


def parser():
    p = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="minires against its peers, taking turns in one run: medians and ratios.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("parts", nargs="*", metavar="part", help="what to run or, with --from, to print (default: all)")
    p.add_argument("--quick", action="store_true", help="two rounds of two steps, each part's first network alone")
    p.add_argument("--threads", type=int, metavar="N", help="for all peers alike (default: the physical cores)")
    p.add_argument("--rounds", type=int, metavar="N", help="turns that each peer takes (default: 5)")
    p.add_argument("--steps", type=int, metavar="N", help="timed steps of a turn (default: 4)")
    p.add_argument(
        "--cases", nargs="+", metavar="MODEL:BATCH", help="networks in place of the parts' own: resnet20:128"
    )
    p.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=PEERS, help=f"of: {', '.join(PEERS[1:])} (minires always)"
    )
    p.add_argument("--json", metavar="FILE", type=Path, help="keep the times; written after each part")
    p.add_argument("--roofline", metavar="FILE.png", type=Path, help="draw the convolutions under the machine's limits")
    p.add_argument(
        "--from", dest="source", metavar="FILE", type=Path, help="print the tables of such a file, run nothing"
    )
    return p


def settings_of(args, p):
    """The Settings; a mistake ends the program with a sentence."""
    try:
        cases = tuple((case.model, case.batch) for case in (Case.parse(text, ()) for text in args.cases or ()))
    except ValueError:
        p.error(f"--cases takes MODEL:BATCH, such as resnet20:128, not {' '.join(args.cases)}")
    for name, value in (("--threads", args.threads), ("--rounds", args.rounds), ("--steps", args.steps)):
        if value is not None and value < 1:
            p.error(f"{name} is a whole number from 1 up, not {value}")
    if args.cases:
        from minires import models

        if unknown := [model for model, _ in cases if model not in models.names()]:
            p.error(f"no model {', '.join(unknown)}: minires.models.names() lists them")
    threads = args.threads
    if threads is None:
        from minires import get_num_threads

        threads = get_num_threads()
    rounds, steps = (2, 2) if args.quick else (5, 4)
    return Settings(threads, args.rounds or rounds, args.steps or steps, args.quick, cases, tuple(args.peers or ()))


def read(path, p):
    """The records of a JSON file."""
    try:
        return json.loads(path.read_text())["parts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        p.error(f"{path} is no file of a run: {error!r}")


def write(path, records):
    """Whole or not at all: a run is long, and the parts before the last are worth keeping."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    lines = ",\n".join(f"{json.dumps(part)}: {json.dumps(record)}" for part, record in records.items())  # a part a line
    new.write_text('{"parts": {\n' + lines + "\n}}\n")
    os.replace(new, path)


def run(part, settings):
    """The record of a part. What stops it is kept in its place, so that the others still run."""
    record = {"environment": machine.environment(settings.threads), "rounds": settings.rounds, "steps": settings.steps}
    try:
        return {**record, "result": PARTS[part](settings)}
    except PeerError as error:
        say(f"{part}: {error}")
        return {**record, "failed": str(error)}


def main(argv=None):
    p = parser()
    args = p.parse_args(argv)
    if unknown := [part for part in args.parts if part not in PARTS]:
        p.error(f"no part {', '.join(unknown)}: choose of {', '.join(PARTS)}")
    parts = [part for part in PARTS if not args.parts or part in args.parts]
    if args.source:
        found = {part: record for part, record in read(args.source, p).items() if part in parts}
        print(report.document(found))
        return draw(args.roofline, found, p)
    settings = settings_of(args, p)
    if args.roofline and "kernels" not in parts:
        p.error("--roofline is drawn from the part kernels: name it too")
    kept = read(args.json, p) if args.json and args.json.exists() else {}
    if machine.load() > 0.5:
        say(f"The machine is busy (load {machine.load():.1f}): the times will be too.")
    found, stopped = {}, False
    try:
        for part in parts:
            found[part] = run(part, settings)
            if args.json:
                write(args.json, {**kept, **found})
    except KeyboardInterrupt:
        say(f"stopped in {part}; the parts before it are whole")
        stopped = True
    print(report.document(found))
    if stopped:
        return 130
    return draw(args.roofline, found, p) or int(any(failed(record) for record in found.values()))


def failed(record):
    """Whether minires itself, or a whole part, did not run."""
    return "failed" in record or any("failed" in case for case in record["result"].get("cases", ()))


def draw(path, records, p):
    if path is None:
        return 0
    if "kernels" not in records or "failed" in records["kernels"]:
        p.error("--roofline is drawn from the part kernels, which is not here")
    from .roofline import draw

    draw(records["kernels"]["result"], path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
