"""Get the official archives of CIFAR, with pooch: from the authors' server, checked against the official md5 sums.

An archive comes into a folder of its own, ``incomplete-…``, and moves to its place when it is whole, checked and on the
disk. What a crash leaves behind is such a folder, which nobody takes for data and a later download removes.

The bytes come in a thread of their own, so that a server that sends a few of them a second for ever, be it in the middle of
its headers, is given up: a time limit of a socket counts from the last byte.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from ..errors import ConfigError, DataError, nearest
from . import files
from .cifar import LAYOUTS

SERVER = "https://www.cs.toronto.edu/~kriz/"
TRIES = 3
PAUSE = 2.0  # seconds between two tries
STALL = 30.0  # seconds without a byte after which a try is given up
PATIENCE = 60.0  # seconds in which SLOWEST bytes have to come, else a try is given up
SLOWEST = 240_000  # at this rate CIFAR-10 would take 12 hours
CHUNK = 1 << 16
ABANDONED = 3600.0  # seconds after which an incomplete download that does not grow is a dead one's
PREFIX = "incomplete-"
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def download(name, folder=None, kind="binary", progress=None, say=None):
    """Fetch an official archive: (its path, whether it had to be fetched). It is not unpacked: nobody needs that.

    name: "cifar10" or "cifar100". folder: by default where ``load`` looks. kind: "binary" or "python".
    ``progress(done, total)`` is called as bytes come, ``say(sentence)`` before another try. Raises DataError when the
    file cannot be had or kept, and when another file has its place; ConfigError for a name that is not known.
    """
    version = _version(name, kind)
    folder = files.default_folder() if folder is None else Path(folder).expanduser()
    target = folder / version.archive
    if target.exists():
        md5 = md5_of(target)
        if md5 == version.md5:
            return target, False
        raise DataError(
            f"{target} is there already, and is not the official file: its md5 sum is {md5}, not {version.md5}. "
            "Move or delete it, then download again, or give another folder"
        )
    size = version.megabytes * 1_000_000
    fetch(SERVER + version.archive, version.md5, target, size, progress or (lambda done, total: None), say or str)
    return target, True


def _version(name, kind):
    if name not in LAYOUTS:
        there = ", ".join(LAYOUTS)
        raise ConfigError(f"there is no data set {name!r} to download{nearest(name, LAYOUTS)}: choose one of {there}")
    versions = {version.kind: version for version in LAYOUTS[name].versions}
    if kind not in versions:
        raise ConfigError(f"there is no {kind!r} version of {name}: choose one of {', '.join(versions)}")
    return versions[kind]


def md5_of(path):
    """The md5 sum of a file. Raises DataError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def fetch(url, md5, target, size, progress, say):
    """Bring the file at ``url``, of about ``size`` bytes, to ``target``; a file there is whole and has this md5 sum."""
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        free = shutil.disk_usage(folder).free
        if free < size:
            raise DataError(
                f"the disk of {folder} has {free / 1e6:,.0f} MB left, and {target.name} takes {size / 1e6:,.0f} MB: "
                "make room, or give another folder (--data-dir)"
            )
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder, ignore_cleanup_errors=True) as temporary:
            path = _try_again(url, md5, Path(temporary) / target.name, progress, 2 * size, say)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(path, target)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"the disk of {folder} is full, and nothing of {target.name} was kept: it takes {size / 1e6:,.0f} MB; "
                "make room, or give another folder (--data-dir)"
            ) from error
        for file in (path for path in (folder, *folder.parents) if path.is_file()):
            raise DataError(f"{file} is a file, not a folder: give another folder (--data-dir)") from error
        raise DataError(
            f"{folder} cannot be written to: {error.strerror or error}. Give another folder (--data-dir)"
        ) from error


def _try_again(url, md5, path, progress, most, say):
    """The path of the whole file, of at most ``most`` bytes, after at most TRIES tries."""
    import requests  # here, since both take a while to import

    for attempt in range(1, TRIES + 1):
        meter = _Meter(progress, most)
        try:
            return _try(url, md5, path, meter)
        except requests.HTTPError as error:
            reason = f"the server answers {error.response.status_code} {error.response.reason}"
            if error.response.status_code < 500:  # it will not answer otherwise
                break
        except (requests.Timeout, requests.ConnectionError) as error:
            if isinstance(error, requests.ReadTimeout) or "Read timed out" in str(error):
                reason = f"nothing came for {STALL:.0f} seconds"
            else:
                reason = "the connection broke off" if meter.done else "the server cannot be reached"
        except requests.RequestException:
            reason = f"the connection broke off after {meter.done / 1e6:,.1f} MB"
        except _TooSlow:
            reason = (
                f"less than {SLOWEST / 1e3:,.0f} kB came in {PATIENCE:.0f} seconds, after {meter.done / 1e6:,.1f} MB"
            )
        except _TooMuch:
            reason = "more came than the official file has"
            break
        except ValueError:  # pooch's, for another checksum
            reason = "what came has another md5 sum than the official file (damaged, or some other page in its place)"
        if attempt < TRIES:
            say(f"{reason}: trying again ({attempt + 1} of {TRIES})")
            time.sleep(PAUSE)
    raise DataError(
        f"{url} could not be downloaded, and nothing was kept: {reason}. Try again later, or get the file by other "
        f"means and give its place with --data-dir"
    )


def _try(url, md5, path, meter):
    """One try, in a thread that is watched from here. Raises what it raises, or _TooSlow."""
    import pooch

    failed = []

    def work():
        try:
            downloader = pooch.HTTPDownloader(progressbar=meter, chunk_size=CHUNK, timeout=STALL)
            pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=downloader)
        except BaseException as error:  # also what a progress display raises
            failed.append(error)

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it would print what the command line says itself
    worker = threading.Thread(target=work, name="minires-download", daemon=True)
    worker.start()
    try:
        _watch(worker, meter)
    finally:
        meter.abandoned = True  # a worker that is left behind stops at its next chunk
        logger.setLevel(level)
    if failed:
        raise failed[0]
    return path


def _watch(worker, meter):
    """Wait for the worker, as long as its bytes come at a rate worth waiting for."""
    began, before = time.monotonic(), 0
    while worker.is_alive():
        worker.join(0.1)  # not longer: where join cannot be interrupted, Ctrl-C waits for it
        if time.monotonic() - began > PATIENCE:
            whole = meter.total and meter.done >= meter.total  # its checksum is being taken
            if meter.done - before < SLOWEST and not whole and worker.is_alive():
                raise _TooSlow
            began, before = time.monotonic(), meter.done


class _TooMuch(Exception):
    """A server that does not stop."""


class _TooSlow(Exception):
    """A server that hardly sends anything, or a try that was given up for it."""


class _Meter:
    """What pooch takes for a progress bar, one a try: tells on, and stops a server that would fill the disk."""

    def __init__(self, progress, limit):
        self.progress, self.limit = progress, limit
        self.total = self.done = 0
        self.abandoned = False

    def update(self, count):
        if self.abandoned:
            raise _TooSlow
        self.done += count
        if self.done > self.limit + CHUNK:
            raise _TooMuch
        self.progress(min(self.done, self.total or self.done), self.total)

    def reset(self):
        self.done = 0

    def close(self):
        pass


def _remove_abandoned(folder):
    for left in folder.glob(f"{PREFIX}*"):
        try:
            newest = max(path.stat().st_mtime for path in (left, *left.iterdir()))
        except OSError:  # another download has just finished with it
            continue
        if time.time() - newest > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
