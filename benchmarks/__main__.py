"""``python -m benchmarks``: the command line."""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from . import against, busy, kernels, machine, memory, recipes, report, sharing, startup, steps, trees
from .cases import INFERENCE_PEERS, TRAIN_PEERS, Case
from .settings import Settings
from .turns import PeerError, say

PARTS = {**steps.PARTS, **sharing.PARTS, **recipes.PARTS, **kernels.PARTS, **memory.PARTS, **startup.PARTS}
PEERS = tuple(dict.fromkeys((*TRAIN_PEERS, *INFERENCE_PEERS, *recipes.MODES)))
EPILOG = """
parts:
  train          training steps: ResNet-20, -56, pre-activation 110 at batch 128; ResNet-20 at 32 and 512;
                 ResNet-18 at batch 8 and ResNet-50 at batch 4 on 224 x 224; ResNeXt-29 8x64d and DenseNet-BC-100-12
                 at batch 64
  inference      the same networks in eval mode, beside ONNX Runtime and OpenVINO too
  latency        ResNet-20 and ResNet-18 on one image, beside ncnn too
  avx2           ResNet-20's training step, minires and PyTorch held to AVX2
  one-thread     the same on one thread
  scaling        the same on 1, 2, 4, ... threads
  busy           ResNet-20's training step and its inference of one image, alone and beside a busy process (--busy N: beside
                 N) in turn; minires on one thread too
  two-trainings  ResNet-20's training step in two processes at once, with all threads each, against one alone with half
  recipe         a training by the recipe minutes20 and by airbench94 with Muon in PyTorch: seconds a step x steps
  kernels        convolutions by themselves: GFLOP/s, share of the machine's measured peak
  memory         peak memory of training steps; 1,000 steps in a row
  startup        import, first step ever, first step of a new process

busy processes:
  --busy N runs N processes beside the timed ones, from before they warm up until the part ends. Each is an endless loop of
  Python that wants a core to itself; it ends when the benchmark ends, is interrupted or is killed. The table's title says so.

another checkout:
  --against TREE compares this checkout, "new", with another, "old", such as a git worktree of an earlier commit: the parts
  train, inference and memory, or those named. Each runs in processes of its own, by its own benchmarks.worker, on its own
  minires/ and kernels/, with a kernel cache of its own, which starts empty: both compile first. The Python for it is
  TREE/.venv/bin/python where there is one, otherwise the Python that runs this command, which always runs the new checkout.
  The two alternate, and who goes first changes from turn to turn (20 each; of memory, 3 processes each). The result is the
  ratio new / old of the median times, so below 1 is faster, with a 95 % interval by bootstrap over pairs of neighbouring
  turns. A gain or a loss is claimed only where the interval leaves out 1. In the JSON file the parts are called
  "against train", "against inference" and "against memory".

examples:
  python -m benchmarks                                everything; long (every step is timed 20 times): leave the machine alone
  python -m benchmarks --quick                        a short look at everything
  python -m benchmarks train --cases resnet20:128     one network
  python -m benchmarks train --peers "PyTorch NCHW" "PyTorch compile" --rounds 3
  python -m benchmarks busy two-trainings             how well minires shares the cores
  python -m benchmarks train --busy 2 --json busy.json     beside two busy processes; a file has a part either so or alone
  python -m benchmarks kernels --roofline roofline.png
  python -m benchmarks train inference --json run.json     parts already in the file stay, those named are replaced
  python -m benchmarks --from run.json                the tables of a run, without running anything
  git worktree add ../before HEAD~3                   what do the last three commits gain?
  python -m benchmarks train --against ../before --cases resnet20:128 --json gain.json

The peers (PyTorch, ONNX Runtime, OpenVINO, ncnn, JAX) come with: pip install -e ".[bench]". One that is not installed is
left out, with a word. Progress goes to standard error, the tables, in Markdown, to standard output.
"""


def parser():
    p = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="minires against its peers, or another checkout of minires, taking turns in one run: medians and ratios.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("parts", nargs="*", metavar="part", help="what to run or, with --from, to print (default: all)")
    p.add_argument("--quick", action="store_true", help="two rounds of two steps, each part's first network alone")
    p.add_argument("--threads", type=int, metavar="N", help="for all peers alike (default: the physical cores)")
    p.add_argument("--rounds", type=int, metavar="N", help="turns that each peer takes (default: 5; see --against)")
    p.add_argument("--steps", type=int, metavar="N", help="timed steps of a turn (default: 4; of one image 100)")
    p.add_argument("--busy", type=int, metavar="N", help="busy processes beside the timed ones (default: none)")
    p.add_argument(
        "--cases", nargs="+", metavar="MODEL:BATCH", help="networks in place of the parts' own: resnet20:128"
    )
    p.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=PEERS, help=f"of: {', '.join(PEERS[1:])} (minires always)"
    )
    p.add_argument(
        "--against", metavar="TREE", type=Path, help="compare with another checkout of minires instead of peers"
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
    counts = {"--threads": args.threads, "--rounds": args.rounds, "--steps": args.steps, "--busy": args.busy}
    for name, value in counts.items():
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
    steps, many = (args.steps or default for default in ((2, 20) if args.quick else (4, 100)))
    peers = tuple(args.peers or ())
    return Settings(threads, steps=steps, many=many, quick=args.quick, cases=cases, peers=peers, busy=args.busy or 0)


def rounds(part, args):
    """The turns of a part."""
    return args.rounds or (2 if args.quick else against.ROUNDS.get(part, 5))


def choose(args, p):
    """{part: the function that runs it}: those asked for, in the order of the tables."""
    if args.against and args.source:
        p.error("--from runs nothing: leave --against out")
    if args.against and args.peers:
        p.error("--against runs two checkouts of minires and no peers: leave --peers out")
    known = against.PARTS if args.against else {**PARTS, **against.PARTS} if args.source else PARTS
    names = [against.NAME.format(part) if args.against else part for part in args.parts]
    if unknown := [part for part, name in zip(args.parts, names) if name not in known]:
        kind = f"--against does not compare {', '.join(unknown)}" if args.against else f"no part {', '.join(unknown)}"
        p.error(f"{kind}: choose of {', '.join(against.JOBS if args.against else known)}")
    return {name: work for name, work in known.items() if not names or name in names}


def pair(args, p):
    """A context with the two checkouts of --against, or with none."""
    if not args.against:
        return nullcontext(())
    if sentence := trees.refusal(args.against):
        p.error(sentence)
    return trees.pair(args.against)


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


def beside(part, settings):
    """The busy processes that run for the whole of a part. The part busy has its own, which rest now and then."""
    return 0 if part == "busy" else settings.busy


def run(part, work, settings):
    """The record of a part. What stops it is kept in its place, so that the others still run."""
    environment = machine.environment(settings.threads) | {tree.name: tree.facts for tree in settings.trees}
    record = {"environment": environment, "rounds": settings.rounds, "steps": settings.steps}
    if beside(part, settings):
        record["busy"] = settings.busy
    try:
        with busy.processes(beside(part, settings)) as run_or_rest:
            run_or_rest(True)
            return {**record, "result": work(settings)}
    except PeerError as error:
        say(f"{part}: {error}")
        return {**record, "failed": str(error)}


def main(argv=None):
    p = parser()
    args = p.parse_args(argv)
    parts = choose(args, p)
    if args.source:
        found = {part: record for part, record in read(args.source, p).items() if part in parts}
        print(report.document(found))
        return draw(args.roofline, found, p)
    settings = settings_of(args, p)
    if args.roofline and "kernels" not in parts:
        p.error("--roofline is drawn from the part kernels: name it too")
    kept = read(args.json, p) if args.json and args.json.exists() else {}
    if other := [part for part in kept if part in parts and kept[part].get("busy", 0) != beside(part, settings)]:
        p.error(f"{args.json} has {', '.join(other)} with another number of busy processes: name another file")
    if machine.load() > 0.5:
        say(f"The machine is busy (load {machine.load():.1f}): the times will be too.")
    found, stopped = {}, False
    with pair(args, p) as both:
        try:
            for tree in both:
                say(f"{tree.name}: {tree.facts}")
        except PeerError as error:
            p.error(str(error))
        try:
            for part, work in parts.items():
                found[part] = run(part, work, replace(settings, rounds=rounds(part, args), trees=both))
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
