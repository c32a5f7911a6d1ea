"""The parts busy and two-trainings: who works when, and one small run of both."""

import json
import subprocess
import sys

import pytest

from benchmarks import sharing
from benchmarks.cases import Case
from benchmarks.settings import Settings
from benchmarks.turns import ROOT, Peer

SETTINGS = Settings(threads=2, rounds=2, steps=2)
CASE = Case("resnet20", 128, ("minires", "PyTorch NCHW"))
# A peer whose steps take a hundredth of a second (it says five); it logs when each request begins and ends.
STUB = """
import json, sys, time
NAME, LOG = sys.argv[1:]
print(json.dumps({"parameters": 7, "target": "stub"}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    begin, times, end = time.time(), [], time.time() + request.get("seconds", 0)
    while len(times) < request["steps"] or time.time() < end:
        time.sleep(0.01)
        times.append(0.05)
    with open(LOG, "a") as file:
        file.write(json.dumps([NAME, begin, time.time(), len(times)]) + "\\n")
    print(json.dumps(times), flush=True)
"""


@pytest.fixture
def logged(monkeypatch, tmp_path):
    """All peers are stubs; a function gives the log: [name, begin, end, steps] of each request."""
    path = tmp_path / "log"
    threads_of = {}

    def stub(name, task, threads):
        threads_of[name] = threads
        return Peer(name, command=[sys.executable, "-c", STUB, name, str(path)])

    monkeypatch.setattr(sharing, "Peer", stub)
    monkeypatch.setattr(
        sharing, "peers_of", lambda job, case, threads: [stub(name, None, threads) for name in case.peers]
    )
    return lambda: sorted(
        (json.loads(line) for line in path.read_text().splitlines()), key=lambda row: row[1]
    ), threads_of


def test_every_peer_works_alone_and_beside_in_turn():
    events = []

    class Fake:
        peers = {"minires": None, "PyTorch NCHW": None}

        def turn_of(self, name, steps, seconds=0):
            events.append((name, steps, seconds))
            return [9.0] + [float(len(events))] * (steps - 1)

    settings = Settings(threads=2, rounds=2, steps=2)
    seconds = sharing.take_turns(Fake(), settings, 3, events.append)
    turn = [("minires", 3, sharing.TURN), ("PyTorch NCHW", 3, sharing.TURN)]
    assert events[2:6] == [False, turn[0], True, turn[0]]
    assert events[6:10] == [False, turn[1], True, turn[1]]
    assert events[10:] == [True, turn[0], False, turn[0], True, turn[1], False, turn[1]]
    assert seconds[0]["minires"] == [[4.0, 4.0], [14.0, 14.0]]
    assert seconds[3]["minires"] == [[6.0, 6.0], [12.0, 12.0]]


def test_a_peer_that_stops_is_left_out():
    class Fake:
        peers = {"minires": None, "PyTorch NCHW": None}

        def turn_of(self, name, steps, seconds=0):
            assert name in self.peers
            if name != "minires" and seconds:
                self.peers = {"minires": None}
                return None
            return [1.0] * steps

    seconds = sharing.take_turns(Fake(), SETTINGS, 1, lambda running: None)
    assert {beside: set(times) for beside, times in seconds.items()} == {0: {"minires"}, 1: {"minires"}}


def test_the_part_busy_has_two_cases_each(logged, monkeypatch):
    monkeypatch.setattr(sharing, "TURN", 0.05)
    alone, both = sharing.alternate("train", CASE, SETTINGS)
    assert (alone["busy"], both["busy"]) == (0, 1)
    assert alone["job"] == "train"
    assert list(alone["seconds"]) == list(both["seconds"]) == ["minires", "minires, 1 thread", "PyTorch NCHW"]
    _, threads = logged
    assert threads == {"minires": 2, "minires, 1 thread": 1, "PyTorch NCHW": 2}


def test_two_trainings_run_at_once_and_the_others_alone(logged):
    found = sharing.compete(CASE, SETTINGS)
    log, threads = logged
    assert threads == {"one alone": 1, "one alone, all threads": 2, "first of two": 2, "second of two": 2}
    rows = [row for row in log() if row[3] > sharing.WARMUP]  # without the warming up
    turns = {name: [(begin, end) for other, begin, end, _ in rows if other == name] for name in threads}
    assert all(len(spans) == SETTINGS.rounds for spans in turns.values())
    for (a, b), (c, d) in zip(turns["first of two"], turns["second of two"]):
        assert max(a, c) < min(b, d)
    for name in ("one alone", "one alone, all threads"):
        for begin, end in turns[name]:
            assert all(d < begin or end < c for other in threads if other != name for c, d in turns[other])
    steps = {name: [len(times) for times in rounds] for name, rounds in found["seconds"].items()}
    assert steps == {
        name: [row[3] - 2 for row in rows if row[0] == name] for name in threads
    }  # first and last left out
    assert min(min(counts) for counts in steps.values()) >= 1


@pytest.mark.slow
def test_one_small_run(tmp_path):
    """Both parts, from the command line to the tables, without other peers."""
    path = tmp_path / "run.json"
    arguments = [
        "--quick",
        "--cases",
        "resnet8:2",
        "--rounds",
        "1",
        "--threads",
        "2",
        "--peers",
        "JAX",
        "--json",
        str(path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "busy", "two-trainings", "--busy", "2", *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "### Two trainings at once, beside 2 busy processes\n" in done.stdout
    assert "| resnet8, batch 2, 2 threads, beside 2 busy processes |" in done.stdout
    parts = json.loads(path.read_text())["parts"]
    assert [(case["job"], case["busy"]) for case in parts["busy"]["result"]["cases"]] == [
        ("train", 0), ("train", 2), ("inference", 0), ("inference", 2),
    ]  # fmt: skip
    assert parts["two-trainings"]["busy"] == 2
    assert "failed" not in parts["two-trainings"]["result"]["cases"][0]
