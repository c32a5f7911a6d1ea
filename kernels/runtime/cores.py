"""The cores that this process may use, and whether others want them too. They decide how fast kernels run, never a bit."""

import glob
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
LOADS = Path("/proc/loadavg")
EVERY = 1.0  # seconds between two looks at the load, at least
_looked, _many, _crowded = -EVERY, False, False


def allowed_cores():
    """The logical cores that this process may run on, as a set of numbers."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@cache
def physical_cores():
    """The number of physical cores that this process may run on."""
    allowed = allowed_cores()
    if sys.platform == "darwin":
        try:
            return int(
                subprocess.run(["/usr/sbin/sysctl", "-n", "hw.physicalcpu"], capture_output=True, check=True).stdout
            )
        except (OSError, ValueError, subprocess.CalledProcessError):
            return len(allowed)
    cores = set()
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"):
        cpu = int(path.split("/")[5][3:])
        if cpu in allowed:
            with open(path) as file:
                cores.add(file.read().strip())
    return len(cores) or len(allowed)


def quota(groups=GROUPS):
    """The cores' worth of time that a control group (of a container, say) allows, or None for no limit.

    Version 2 writes "quota period" or "max period" in microseconds, version 1 a file for each, with quota −1 for no limit.
    Files that are not there, or say something else, limit nothing.
    """
    try:
        words = (groups / "cpu.max").read_text().split()
    except (OSError, UnicodeDecodeError):
        words = []
        try:
            words = [(groups / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")]
        except (OSError, UnicodeDecodeError):
            return None
    try:
        granted, period = map(int, words)
    except ValueError:
        return None
    return granted / period if granted > 0 and period > 0 else None


def usable_cores():
    """The number of threads that can run at once: physical cores, or fewer if a control group allows less time."""
    limit = quota()
    return physical_cores() if limit is None else max(1, min(physical_cores(), int(limit)))


def running(loads=LOADS):
    """The number of threads on this machine that run or want to, this one included; 0 if that is not known."""
    try:
        return int(loads.read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError, UnicodeDecodeError):
        return 0


def crowded():
    """Whether more threads than there are cores wanted to run, the last two times that this was looked at.

    Once may be chance: something that runs for a millisecond.
    """
    global _looked, _many, _crowded
    now = time.monotonic()
    if now - _looked >= EVERY:
        before, _looked, _many = _many, now, running() > len(allowed_cores())
        _crowded = before and _many
    return _crowded
