"""What a run ran on: the CPU, its cores, the versions of everything, the features used."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from .turns import ROOT

LIBRARIES = ("numpy", "numba", "llvmlite", "torch", "onnxruntime", "onnx", "openvino", "ncnn", "jax")


def cpu_name():
    """As the system calls it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith(("model name", "Model name")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _output(*command, cwd=ROOT):
    try:
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit(root=ROOT):
    """A checkout's commit, and whether files differ from it; empty for a folder that is not the root of a checkout."""
    top = _output("git", "rev-parse", "--show-toplevel", cwd=root)
    if not top or not root.samefile(top):
        return ""
    name = _output("git", "rev-parse", "--short=12", "HEAD", cwd=root)
    return name and name + (" and changes" if _output("git", "status", "--porcelain", "-uno", cwd=root) else "")


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def environment(threads):
    """{what: text} for the head of a run and its JSON file."""
    import minires as mr
    from minires.kernels.runtime import target
    from minires.kernels.runtime.cores import physical_cores

    fused = "fused multiply-add" if target.HAS_FMA else "separate multiply and add"
    facts = {
        "CPU": cpu_name(),
        "cores": f"{physical_cores()} physical, {os.cpu_count()} logical",
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "kernels": f"{target.KIND} ({target.CPU_NAME}), {target.VECTOR_BYTES // 4} float32 lanes, {fused}",
        "minires": f"{mr.__version__}" + (f", commit {commit()}" if commit() else ""),
        "versions": ", ".join(f"{name} {installed(name)}" for name in LIBRARIES),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return facts


def load():
    """Processes that wanted a core in the last minute, or 0.0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
