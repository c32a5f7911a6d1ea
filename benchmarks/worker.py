"""What runs in a peer's process: ``python -m benchmarks.worker '{"job": "train", "peer": "minires", …}'``.

It builds what the task says, writes its facts as a line of JSON, then answers one request a line until its input ends.
"""

import json
import os
import sys
import time
from contextlib import suppress
from statistics import median

from .cases import CONVS, MINIRES, Case


def steps(task):
    """Jobs ``train`` and ``inference``: {"steps": n} or {"seconds": at least} → the seconds of each step."""
    from .peers import build

    case = Case(task["model"], task["batch"])
    step, parameters = build(task["job"], task["peer"], case, task["threads"])

    def answer(steps=0, seconds=0):
        return timed_for(step, steps, seconds)

    return answer, {"parameters": parameters, "target": instructions(task["peer"])}


def recipe(task):
    """Job ``recipe``: as ``train``, of a whole recipe."""
    from .recipes import work

    step, schedule = work(task)
    return lambda steps=0, seconds=0: timed_for(step, steps, seconds), {"schedule": schedule}


def instructions(name):
    """The instruction set that a peer's own kernels were made for, where it says so."""
    if name == MINIRES:
        from minires.kernels.runtime import target

        return f"{target.KIND} ({target.CPU_NAME})"
    if name.startswith("PyTorch"):
        import torch

        return torch.backends.cpu.get_cpu_capability()
    return None


def timed_for(work, calls, seconds):
    """The seconds of each call: so many calls at least, and more until so many seconds have passed."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < calls or time.perf_counter() < end:
        times.append(timed(work))
    return times


def timed(work):
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 7)


def memory(task):
    """Job ``memory``: {"steps": n} → bytes before them, at the peak, and after."""
    from .peers import build

    case = Case(task["model"], task["batch"])
    step, parameters = build("train", task["peer"], case, task["threads"])

    def answer(steps):
        forget_peak()
        before = resident("VmRSS")
        for _ in range(steps):
            step()
        after = resident("VmRSS")  # before the peak is: another thread may take memory between the two
        return {"before": before, "peak": resident("VmHWM"), "after": after}

    return answer, {"parameters": parameters}


def forget_peak():
    """Let the peak begin again, where the system allows it (Linux)."""
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def resident(field):
    """Bytes resident now (``VmRSS``) or at the peak (``VmHWM``); where there is no /proc, the peak for both."""
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith(field + ":"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def convolutions(task):
    """Job ``kernels``: {"conv": index, "use": …, "seconds": at least} → the median seconds of a call."""
    from .conv_peers import build

    work_of = build(task["peer"], task["threads"])

    def answer(conv, use, seconds):
        work = work_of(CONVS[conv], use)
        work(), work()
        return median(timed_for(work, 3, seconds))

    return answer, {}


def limits(task):
    """Job ``limits``: {} → GFLOP/s of fused multiply-adds and GB/s of a triad, the best of a few."""
    from .roofline import Limits

    machine = Limits(task["threads"])
    return lambda: {"gflops": machine.gflops(), "bandwidth": machine.bandwidth()}, {}


JOBS = {
    "train": steps,
    "inference": steps,
    "memory": memory,
    "kernels": convolutions,
    "limits": limits,
    "recipe": recipe,
}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer

    def say(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    task = json.loads(sys.argv[1])
    try:
        answer, facts = JOBS[task["job"]](task)
    except ImportError as error:
        say({"missing": f"{error} (pip install -e '.[bench]' installs the peers)"})
        return
    say(facts)
    for line in sys.stdin:
        say(answer(**json.loads(line)))


if __name__ == "__main__":
    main()
