"""The cores that this process may use, and how much of them other processes leave.

What a system does not say is taken to be no limit. All of this decides on how many threads kernels run, never their results.
"""

import ctypes
import glob
import math
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
INTERVAL = 1.0  # seconds between two looks at the load
SOON = 0.05  # the same after a pause of more than two intervals, of which nothing is known


def allowed_cpus():
    """The numbers of the logical CPUs that the calling thread may run on."""
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):  # macOS and Windows have no such function
        return set(range(os.cpu_count() or 1))


@cache
def physical_cores():
    """The number of physical cores that this process may run on."""
    allowed = allowed_cpus()
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


@cache
def usable_cores():
    """The physical cores, or fewer if a container's CPU quota is worth fewer."""
    return math.ceil(min(physical_cores(), quota()))


def quota(root=CGROUPS, membership="/proc/self/cgroup"):
    """How many cores' time the cgroups of this process may use, those above them included. Infinite if there is no limit."""
    try:
        lines = [line.split(":", 2) for line in Path(membership).read_text().splitlines()]
    except (OSError, ValueError):
        return math.inf
    limits = [math.inf]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers:
            limits += [_limit_v2(folder) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for mount in {"cpu", controllers, "cpu,cpuacct"}:
                limits += [_limit_v1(folder) for folder in _upwards(root / mount, path)]
    return min(limits)


def _upwards(mount, path):
    """A cgroup's folder and those above it. A container may see its own as the mount."""
    folder = mount / path.lstrip("/")
    return [folder, *(above for above in folder.parents if above == mount or mount in above.parents)]


def _limit_v2(folder):
    words = _words(folder / "cpu.max")  # "max 100000" or "150000 100000", microseconds in a period
    return _cores(*words) if len(words) == 2 else math.inf


def _limit_v1(folder):
    words = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    return _cores(*words) if len(words) == 2 else math.inf


def _words(path):
    try:
        return path.read_text().split()
    except (OSError, ValueError):
        return []


def _cores(time, period):
    """A quota of −1 or "max" is none."""
    if time.isdecimal() and period.isdecimal() and int(time) > 0 and int(period) > 0:
        return int(time) / int(period)
    return math.inf


def _current_cpu():
    """A function that returns the number of the CPU on which the calling thread runs, or None where there is none."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)


current_cpu = _current_cpu()


def runnable_threads(path="/proc/loadavg"):
    """The number of threads of the whole system that run or wait for a core, or None where the system does not say."""
    try:
        with open(path) as file:
            return int(file.read().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return None


class Load:
    """What other processes leave of the cores. ``look`` is called before every kernel, and looks once a second at most.

    others: the threads beside this process's own that run or wait for a core which this process may use, the lesser of the last
    two looks: what runs for a moment, such as the threads that another library lets spin, should not cost a second's speed.
    After a pause nothing is known of others, and the second look comes soon.
    fair_share: how many threads would have a core each if every thread that wants one got the same time, rounded up.
    """

    def __init__(self):
        self.others, self.fair_share = 0, sys.maxsize
        self._last, self._next = -math.inf, 0.0
        self._seen = 0  # others in the last look

    def look(self, own):
        """own: a function that returns the number of this process's threads that run now."""
        now = time.monotonic()
        if now < self._next:
            return
        paused, self._last = now - self._last > 2 * INTERVAL, now
        self._next = now + (SOON if paused else INTERVAL)
        running = runnable_threads()
        if running is None:
            return
        allowed = len(allowed_cpus())
        elsewhere = max(0, (os.cpu_count() or 1) - allowed)  # CPUs that are not ours; the others fill them first
        before, self._seen = 0 if paused else self._seen, max(0, running - own() - elsewhere)
        self.others = min(before, self._seen)
        self.fair_share = math.ceil(allowed * allowed / (allowed + self.others)) if self.others else sys.maxsize
