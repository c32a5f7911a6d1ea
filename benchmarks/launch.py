"""Starts a checkout's own ``benchmarks.worker``, after checking that the checkout's own code is what gets imported.

``python -P …/benchmarks/launch.py TASK``, run in the root of that checkout. It needs nothing of the checkout but the worker,
so commits older than this file can be measured. Without a task it prints the versions in use as a line of JSON.
"""

import json
import os
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

PACKAGES = {"minires": "minires", "minires.kernels": "kernels", "benchmarks": "benchmarks"}  # by folder of the checkout


def check(tree):
    """Ends the process when a package comes from elsewhere: another checkout, installed with ``pip install -e``, say."""
    for name, folder in PACKAGES.items():
        found = Path(import_module(name).__file__).resolve().parent
        if found != tree / folder:
            raise SystemExit(f"{name} was imported from {found}, not from {tree / folder}")


def main():
    sys.path.insert(0, os.getcwd())  # ahead of PYTHONPATH; -P has kept the folder of this file out
    check(Path.cwd().resolve())
    if len(sys.argv) > 1:
        import_module("benchmarks.worker").main()
    else:
        versions = {name: version(name) for name in ("numpy", "numba", "llvmlite")}
        print(json.dumps({"Python": platform.python_version(), **versions}))


if __name__ == "__main__":
    main()
