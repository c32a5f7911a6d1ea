"""A training step of minires and of PyTorch, taking turns in one run: medians and ratios.

Each peer has a process of its own, which sleeps while another is timed (two OpenMP runtimes in one process disturb each
other). Same model, batch, threads and optimizer; synthetic images. Leave the machine alone while it runs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from statistics import median

from .peers import PEERS


def start(name, model, batch, threads):
    env = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.peers", name, model, str(batch)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def ask(process, steps):
    """The seconds of each of so many steps."""
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"{process.args[3]} stopped with exit code {process.wait()}")
    return json.loads(answer)


def measure(model, batch, threads, names, rounds, steps):
    """{peer: [seconds of every timed step]}, the peers taking turns."""
    processes = {name: start(name, model, batch, threads) for name in names}
    try:
        for name, process in processes.items():
            print(f"warming up {name} …", file=sys.stderr)
            ask(process, 3)
        seconds = {name: [] for name in names}
        for r in range(rounds):
            for name, process in processes.items():
                seconds[name] += ask(process, steps + 1)[1:]  # the first finds cold caches after the others' turns
            print(f"round {r + 1} of {rounds}", file=sys.stderr)
        return seconds
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()


def table(seconds):
    """Markdown: median and fastest step of each peer, and how many times as long it takes as minires."""
    ours = median(seconds["minires"])
    rows = ["| peer | step, ms (median) | fastest | time against minires |", "| --- | --- | --- | --- |"]
    for name, times in seconds.items():
        rows.append(f"| {name} | {median(times) * 1e3:.0f} | {min(times) * 1e3:.0f} | {median(times) / ours:.2f} × |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="resnet20", help="a CIFAR ResNet by name (default: resnet20)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=None, help="default: the physical cores")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each peer takes (default: 5)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps in a turn (default: 4)")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--json", help="also write all times to this file")
    args = parser.parse_args()
    if args.threads is None:
        from minires import get_num_threads

        args.threads = get_num_threads()
    names = ["minires", *[name for name in args.peers if name != "minires"]]
    seconds = measure(args.model, args.batch_size, args.threads, names, args.rounds, args.steps)
    turns = len(seconds["minires"])
    print(
        f"{args.model}, batch {args.batch_size}, {args.threads} threads, {platform.machine()}, medians of {turns} steps"
    )
    print(table(seconds))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(
                {"model": args.model, "batch": args.batch_size, "threads": args.threads, "seconds": seconds}, file
            )


if __name__ == "__main__":
    main()
