"""The part startup: importing minires, the first step ever (empty cache), and the first step of a new process."""

import os
import subprocess
import sys
import tempfile

from .cases import MINIRES, NCHW, Case
from .turns import ROOT, THREAD_VARIABLES, PeerError, say

IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
FIRST_STEP = """
import time
start = time.perf_counter()
from benchmarks.cases import Case
from benchmarks.peers import build
step, _ = build("train", {name!r}, Case({model!r}, {batch}), {threads})
step()
print(time.perf_counter() - start)
"""


def seconds_of(code, threads, **env):
    """The number that a new Python process prints last. Raises PeerError when it prints none."""
    env = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **env}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise PeerError(f"a new process stopped with exit code {done.returncode}: {last}")
    return float(done.stdout.split()[-1])


def run(settings):
    """{what: [seconds, one a process]}."""
    case = Case(*settings.cases[0]) if settings.cases else Case("resnet20", 128)
    times = 2 if settings.quick else max(settings.rounds, 3)
    threads = settings.threads

    def first_step(name, **env):
        code = FIRST_STEP.format(name=name, model=case.model, batch=case.batch, threads=threads)
        return seconds_of(code, threads, **env)

    rows = {}
    say("startup: import")
    rows["import minires"] = [seconds_of(IMPORT.format("minires"), threads) for _ in range(times)]
    with tempfile.TemporaryDirectory() as cache:
        say("startup: the first step ever, which compiles")
        rows[f"first step ever ({case}), empty cache, import included"] = [first_step(MINIRES, MINIRES_CACHE_DIR=cache)]
        say("startup: new processes, warm cache")
        warm = [first_step(MINIRES, MINIRES_CACHE_DIR=cache) for _ in range(times)]
    rows["first step of a new process, warm cache, import included"] = warm
    if settings.peers and NCHW not in settings.peers:
        return {"rows": rows}
    try:
        rows["import torch"] = [seconds_of(IMPORT.format("torch"), threads) for _ in range(times)]
        rows["first step of a new process, PyTorch NCHW, import included"] = [first_step(NCHW) for _ in range(times)]
    except PeerError as error:
        say(f"  {NCHW} is left out: {error}")
    return {"rows": rows}


PARTS = {"startup": run}
