"""What it costs to begin: importing minires, the very first compile, and the first step of a new process."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

IMPORT = "import time; start = time.perf_counter(); import minires; print(time.perf_counter() - start)"
FIRST_STEP = """
import time
start = time.perf_counter()
from benchmarks.peers import minires_step
step = minires_step("resnet20", 128)
step()
print(time.perf_counter() - start)
"""


def run(code, env):
    """The number that a new Python process prints."""
    return float(
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="processes per figure (default: 5)")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "MINIRES_CACHE_DIR": cache}
        start = time.perf_counter()
        cold = run(FIRST_STEP, env)
        total = time.perf_counter() - start
        warm = [run(FIRST_STEP, env) for _ in range(times)]
    imports = [run(IMPORT, os.environ) for _ in range(times)]
    print("| what | seconds |\n| --- | --- |")
    print(f"| import minires, median of {times} | {median(imports):.2f} |")
    print(f"| first ResNet-20 step ever, empty cache, import included | {cold:.1f} (process {total:.1f}) |")
    print(f"| first step of a new process, warm cache, import included, median of {times} | {median(warm):.2f} |")


if __name__ == "__main__":
    main()
