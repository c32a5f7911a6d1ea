"""Two checkouts of minires side by side: this one, "new", and another, "old". Neither sees anything of the other."""

import json
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .cases import MINIRES, NEW, OLD
from .machine import commit
from .turns import ROOT, Peer

LAUNCH = Path(__file__).with_name("launch.py")
NEEDED = ("setup.cfg", "minires/__init__.py", "kernels/__init__.py", "benchmarks/worker.py")


@dataclass(frozen=True)
class Tree:
    """A checkout, the Python that runs it, and the folder for its compiled kernels."""

    name: str
    root: Path
    python: str
    cache: Path

    def peer(self, job, case, threads):
        """A process of its worker, which imports the checkout's own packages or stops."""
        task = {"job": job, "peer": MINIRES, "model": case.model, "batch": case.batch, "threads": threads}
        return self._launch(threads, json.dumps(task))

    @cached_property
    def facts(self):
        """Its commit and the versions it runs on. Raises PeerError when its packages cannot be imported."""
        with self._launch(1) as process:
            versions = process.start()
        known = commit(self.root)
        return ", ".join([f"commit {known}" if known else "no commit", *(f"{k} {v}" for k, v in versions.items())])

    def _launch(self, threads, *arguments):
        command = [self.python, "-P", str(LAUNCH), *arguments]
        env = {"MINIRES_CACHE_DIR": str(self.cache)}
        return Peer(self.name, threads=threads, env=env, command=command, cwd=self.root)


def refusal(path):
    """Why a folder cannot be the other checkout, in a sentence, or None."""
    if lacking := [name for name in NEEDED if not (path / name).is_file()]:
        return f"{path} is not a checkout of minires with benchmarks: it has no {lacking[0]}"
    if path.samefile(ROOT):
        return f"{path} is this very checkout: name another one, such as a git worktree of an earlier commit"
    return None


@contextmanager
def pair(path):
    """(new, old): this checkout and the one at ``path``. Their kernel caches are temporary and start empty."""
    root = path.resolve()
    own = root / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    with tempfile.TemporaryDirectory(prefix="minires-against-", ignore_cleanup_errors=True) as folder:
        cache = Path(folder)
        yield Tree(NEW, ROOT, sys.executable, cache / NEW), Tree(OLD, root, python, cache / OLD)
