"""Peers take turns. Each is a process of its own, which sleeps on a pipe while another is timed.

Two OpenMP runtimes in one process disturb each other, and a library's idle threads spin; so nothing is shared. A request
and an answer are a line of JSON each. A peer's first line says what it is, or that it is not installed.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # JAX
)


class PeerError(Exception):
    """A peer cannot be had or has stopped; the message is a sentence."""


def say(text):
    """Progress, for whoever waits: on standard error."""
    print(text, file=sys.stderr, flush=True)


def in_turn(items, turn):
    """Their order in a turn: flipped in every other one, so that going second is nobody's lot."""
    return items if turn % 2 == 0 else items[::-1]


class Peer:
    """A process that runs ``benchmarks.worker`` on a task (a dict), or any other command that speaks the same way."""

    def __init__(self, name, task=None, threads=1, env=(), command=None, cwd=ROOT):
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close; a pipe that nobody reads would block the peer)
        env = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **dict(env)}
        command = command or [sys.executable, "-m", "benchmarks.worker", json.dumps({**task, "threads": threads})]
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def start(self):
        """Wait until it is built; its facts. Raises PeerError when it is not installed."""
        self.facts = self.answer()
        if "missing" in self.facts:
            raise PeerError(f"{self.name} is left out: {self.facts['missing']}")
        return self.facts

    def ask(self, **request):
        """The answer to a request. Raises PeerError when the process has stopped."""
        self.send(**request)
        return self.answer()

    def send(self, **request):
        """A request whose answer is fetched later, so that several peers work at once. Raises PeerError as ``ask``."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise PeerError(self._death()) from None

    def answer(self):
        """The next line that it writes, from JSON. Raises PeerError when it stops instead."""
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(self._death())
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            raise PeerError(f"{self.name} answered {line.strip()[:80]!r}, which is no JSON") from None

    def _death(self):
        """What is known of its end: the exit code and the last line it wrote on standard error."""
        code = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"stopped with exit code {code}"
        return f"{self.name} {how}" + (f": {lines[-1].strip()}" if lines else ", without a word")

    def close(self):
        """Let it end: it reads to the end of its input. One that does not within ten seconds is killed."""
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was still to be written is not wanted any more
                pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Table:
    """Several peers at once. The first is ours. It and all others ``needed`` have to run; the rest may be left out.

    One that fails and is not needed is left out from then on, with the reason.
    """

    def __init__(self, peers, needed=()):
        self.peers = {peer.name: peer for peer in peers}
        self.ours = next(iter(self.peers))
        self.needed = {self.ours, *needed}
        self.missing = {}  # name -> sentence

    def _drop(self, name, error):
        if name in self.needed:
            raise error
        say(f"  {error}")
        self.missing[name] = str(error)
        self.peers.pop(name).close()

    def start(self):
        """Build them one after another, and check that all count the same parameters."""
        for name in list(self.peers):
            try:
                facts = self.peers[name].start()
            except PeerError as error:
                self._drop(name, error)
                continue
            ours = self.peers[self.ours].facts.get("parameters")
            if facts.get("parameters") != ours:
                raise PeerError(
                    f"{name} has {facts.get('parameters')} parameters and {self.ours} {ours}: not the same network"
                )

    def turn_of(self, name, **request):
        """One peer's answer, or None when it has stopped: then it is left out from now on."""
        try:
            return self.peers[name].ask(**request)
        except PeerError as error:
            self._drop(name, error)
            return None

    def turn(self, **request):
        """{name: answer}, one peer after another."""
        answers = {name: self.turn_of(name, **request) for name in list(self.peers)}
        return {name: answer for name, answer in answers.items() if answer is not None}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for peer in self.peers.values():
            peer.close()
