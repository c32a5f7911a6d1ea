"""Download the official archives of CIFAR from the authors' server, with pooch, and check their md5 sums.

An archive is downloaded into a temporary folder, ``incomplete-…``, and moved to its place when it is complete, checked and
flushed to disk. A crash leaves such a folder behind, which is not mistaken for data; a later download removes it.

The download runs in a thread, so that it can be abandoned when a server sends a few bytes per second forever, even in the
middle of its headers: the timeout of a socket starts again with every byte.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ...errors import ConfigError, DataError, nearest
from ...files import expand_user
from . import files
from .datasets import LAYOUTS
from .layout import Version

Progress = Callable[[int, int], object]  # called with the numbers of bytes done and in total
Say = Callable[[str], object]  # called with a sentence

SERVER = "https://www.cs.toronto.edu/~kriz/"
TRIES = 3
PAUSE = 2.0  # seconds between two tries
STALL = 30.0  # seconds without a byte after which a try is abandoned
PATIENCE = 60.0  # seconds in which SLOWEST bytes must arrive, else a try is abandoned
SLOWEST = 240_000  # at this rate CIFAR-10 would take 12 hours
CHUNK = 1 << 16
ABANDONED = 3600.0  # seconds without growth after which an incomplete download is considered dead
PREFIX = "incomplete-"
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def download(
    name: str,
    folder: Path | str | None = None,
    kind: Literal["binary", "python"] = "binary",
    progress: Progress | None = None,
    say: Say | None = None,
) -> tuple[Path, bool]:
    """Download an official archive: (its path, whether it had to be downloaded). It is read without being unpacked.

    name: "cifar10" or "cifar100". folder: by default where ``load`` looks. kind: "binary" or "python".
    ``progress(done, total)`` is called with numbers of bytes, ``say(sentence)`` before another try. Raises DataError when
    the file cannot be downloaded or stored, or when a different file has its path; ConfigError for an unknown name or kind.
    """
    version = _version(name, kind)
    folder = files.default_folder() if folder is None else expand_user(folder)
    target = folder / version.archive
    if target.exists():
        md5 = md5_of(target)
        if md5 == version.md5:
            with suppress(OSError):
                _remove_abandoned(folder)
            return target, False
        raise DataError(
            f"{target} is there already, and is not the official file: its md5 sum is {md5}, not {version.md5}. "
            "Move or delete it, then download again, or give another folder"
        )
    size = version.megabytes * 1_000_000
    fetch(SERVER + version.archive, version.md5, target, size, progress or (lambda done, total: None), say or str)
    return target, True


def _version(name: str, kind: Literal["binary", "python"]) -> Version:
    if name not in LAYOUTS:
        there = ", ".join(LAYOUTS)
        raise ConfigError(f"there is no data set {name!r} to download{nearest(name, LAYOUTS)}: choose one of {there}")
    versions = {version.kind: version for version in LAYOUTS[name].versions}
    if kind not in versions:
        raise ConfigError(f"there is no {kind!r} version of {name}: choose one of {', '.join(versions)}")
    return versions[kind]


def md5_of(path: Path) -> str:
    """The md5 sum of a file. Raises DataError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def fetch(url: str, md5: str, target: Path, size: int, progress: Progress, say: Say) -> None:
    """Download ``url``, a file of about ``size`` bytes with this md5 sum, to ``target``. Raises DataError otherwise."""
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
        for parent in (path for path in (folder, *folder.parents) if path.is_file()):
            raise DataError(f"{parent} is a file, not a folder: give another folder (--data-dir)") from error
        raise DataError(
            f"{folder} cannot be written to: {error.strerror or error}. Give another folder (--data-dir)"
        ) from error


def _try_again(url: str, md5: str, path: Path, progress: Progress, most: int, say: Say) -> Path:
    """The path of the complete file, of at most ``most`` bytes, after at most TRIES tries."""
    import requests  # here, since requests and pooch are slow to import

    for attempt in range(1, TRIES + 1):
        meter = _Meter(progress, most)
        try:
            return _try(url, md5, path, meter)
        except requests.HTTPError as error:
            response: Any = error.response  # not None: raise_for_status sets it
            reason = f"the server answers {response.status_code} {response.reason}"
            if response.status_code < 500:  # another try would get the same answer
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
        except ValueError:  # raised by pooch when the checksum is wrong
            reason = "what came has another md5 sum than the official file (damaged, or some other page in its place)"
        if attempt < TRIES:
            say(f"{reason}: trying again ({attempt + 1} of {TRIES})")
            time.sleep(PAUSE)
    raise DataError(
        f"{url} could not be downloaded, and nothing was kept: {reason}. Try again later, or get the file by other "
        f"means and give its place with --data-dir"
    )


def _try(url: str, md5: str, path: Path, meter: "_Meter") -> Path:
    """One try, in a thread. Raises what the thread raises, or _TooSlow."""
    import pooch

    failed: list[BaseException] = []

    def work() -> None:
        try:
            downloader = pooch.HTTPDownloader(progressbar=meter, chunk_size=CHUNK, timeout=STALL)
            pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=downloader)
        except BaseException as error:  # including what ``progress`` raises
            failed.append(error)

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # the command line prints its own messages
    worker = threading.Thread(target=work, name="minires-download", daemon=True)
    worker.start()
    try:
        _watch(worker, meter)
    finally:
        meter.abandoned = True  # a worker that still runs stops at its next chunk
        logger.setLevel(level)
    if failed:
        raise failed[0]
    return path


def _watch(worker: threading.Thread, meter: "_Meter") -> None:
    """Wait for the worker while its rate is acceptable. Raises _TooSlow when it is not."""
    began, before = time.monotonic(), 0
    while worker.is_alive():
        worker.join(0.1)  # short, since on some systems Ctrl-C cannot interrupt a join
        if time.monotonic() - began > PATIENCE:
            complete = meter.total and meter.done >= meter.total  # its checksum is being computed
            if meter.done - before < SLOWEST and not complete and worker.is_alive():
                raise _TooSlow
            began, before = time.monotonic(), meter.done


class _TooMuch(Exception):
    """The server sends more than the file has."""


class _TooSlow(Exception):
    """The server sends too little, or the try has been abandoned for that."""


class _Meter:
    """The progress bar of one try, in pooch's interface: reports progress, and stops a server that would fill the disk."""

    def __init__(self, progress: Progress, limit: int) -> None:
        self.progress, self.limit = progress, limit
        self.total = self.done = 0
        self.abandoned = False

    def update(self, count: int) -> None:
        if self.abandoned:
            raise _TooSlow
        self.done += count
        if self.done > self.limit + CHUNK:
            raise _TooMuch
        self.progress(min(self.done, self.total or self.done), self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def _remove_abandoned(folder: Path) -> None:
    """Remove what downloads that died have left in a folder."""
    for left in folder.glob(f"{PREFIX}*"):
        try:
            newest = max(path.stat().st_mtime for path in (left, *left.iterdir()))
        except OSError:  # another download has just removed it
            continue
        if time.time() - newest > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
