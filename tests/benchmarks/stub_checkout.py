"""A checkout of minires in which only the worker does anything: it logs requests and answers with given numbers."""

WORKER = """
import json, os, sys, time
from pathlib import Path

LOG = Path(__file__).parents[1] / "log"


def log(value):
    with LOG.open("a") as file:
        file.write(json.dumps(value) + "\\n")


def main():
    task = json.loads(sys.argv[1])
    log([task, {name: os.environ[name] for name in ("MINIRES_CACHE_DIR", "NUMBA_NUM_THREADS")}])
    print(json.dumps({"parameters": PARAMETERS, "target": "stub"}), flush=True)
    for line in sys.stdin:
        steps = json.loads(line)["steps"]
        log([time.time(), task["job"], steps])
        if DIES:
            raise SystemExit("out of luck")
        grown = {"before": 2**20, "peak": 2**20 + MEGABYTES * 2**20, "after": 2**20}
        print(json.dumps(grown if task["job"] == "memory" else [SECONDS] * steps), flush=True)
"""


def stub(root, seconds=0.01, megabytes=10, parameters=7, dies=False):
    """Writes it; its root."""
    for folder in ("minires", "kernels", "benchmarks"):
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").touch()
    (root / "setup.cfg").touch()
    (root / "minires" / "__init__.py").write_text(
        "from pathlib import Path\n__path__.append(str(Path(__file__).parents[1]))"
    )
    numbers = f"SECONDS, MEGABYTES, PARAMETERS, DIES = {seconds}, {megabytes}, {parameters}, {dies}\n"
    (root / "benchmarks" / "worker.py").write_text(numbers + WORKER)
    return root
