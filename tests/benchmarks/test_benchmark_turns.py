"""Peers as processes: they answer, and one that dies, is not there or is another network is said so in a sentence."""

import sys

import pytest

from benchmarks import steps
from benchmarks.cases import Case
from benchmarks.settings import Settings
from benchmarks.turns import Peer, PeerError, Table

FACTS = "print('{\"parameters\": 7}', flush=True)\n"
ECHO = FACTS + "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
OTHER = ECHO.replace("7", "8")
DIES = FACTS + "input()\nraise SystemExit('out of luck')"
KILLED = FACTS + "input()\nimport os\nos.kill(os.getpid(), 9)"
SILENT = FACTS + "input()"
BABBLES = "print('hello')"
MISSING = 'print(\'{"missing": "No module named x"}\')'


def peer(name, code):
    return Peer(name, command=[sys.executable, "-c", code])


def test_a_request_is_answered():
    with peer("echo", ECHO) as echo:
        assert echo.start() == {"parameters": 7}
        assert echo.ask(steps=3) == {"steps": 3}
        assert echo.ask(steps=4) == {"steps": 4}


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (DIES, "B stopped with exit code 1: out of luck"),
        (KILLED, "B was killed by signal 9, without a word"),
        (SILENT, "B stopped with exit code 0, without a word"),
    ],
)
def test_a_dead_peer_gives_a_sentence(code, sentence):
    with peer("B", code) as dead:
        dead.start()
        with pytest.raises(PeerError, match=f"^{sentence}$"):
            dead.ask(steps=1)
        with pytest.raises(PeerError, match=f"^{sentence}$"):
            dead.ask(steps=1)  # still, and not a broken pipe


def test_a_peer_that_does_not_start_gives_a_sentence():
    with peer("B", MISSING) as missing, pytest.raises(PeerError, match=r"^B is left out: No module named x$"):
        missing.start()
    with peer("B", BABBLES) as babbling, pytest.raises(PeerError, match="'hello', which is no JSON"):
        babbling.start()


def test_the_others_go_on_without_it(capsys):
    with Table([peer("ours", ECHO), peer("dying", DIES), peer("absent", MISSING)]) as table:
        table.start()
        assert table.turn(steps=1) == {"ours": {"steps": 1}}
        assert table.turn(steps=2) == {"ours": {"steps": 2}}
        assert table.missing == {
            "absent": "absent is left out: No module named x",
            "dying": "dying stopped with exit code 1: out of luck",
        }
    assert "out of luck" in capsys.readouterr().err


def test_ours_has_to_run():
    with Table([peer("ours", DIES), peer("theirs", ECHO)]) as table:
        table.start()
        with pytest.raises(PeerError, match="ours stopped"):
            table.turn(steps=1)


def test_another_network_is_refused():
    refused = pytest.raises(PeerError, match="theirs has 8 parameters and ours 7")
    with Table([peer("ours", ECHO), peer("theirs", OTHER)]) as table, refused:
        table.start()


def test_turns_are_taken_one_after_another_and_the_first_step_is_not_counted():
    asked = []

    class Fake:
        peers = {"minires": None, "PyTorch NCHW": None, "NumPy im2col": None}

        def turn_of(self, name, steps):
            asked.append((name, steps))
            return [9.0] + [float(len(asked))] * (steps - 1)

    seconds = steps.take_turns(Fake(), Settings(threads=1, rounds=3, steps=2))
    assert asked[:3] == [("minires", 3), ("PyTorch NCHW", 3), ("NumPy im2col", 1)]  # to warm up
    assert asked[3:6] == [("minires", 3), ("PyTorch NCHW", 3), ("NumPy im2col", 1)]
    assert asked[-2:] == [("minires", 3), ("PyTorch NCHW", 3)]  # the slow one took two turns, of one step
    assert seconds == {
        "minires": [[4.0, 4.0], [7.0, 7.0], [10.0, 10.0]],
        "PyTorch NCHW": [[5.0, 5.0], [8.0, 8.0], [11.0, 11.0]],
        "NumPy im2col": [[9.0], [9.0]],
    }


def test_a_prediction_of_one_image_takes_many_steps_a_turn_and_gives_their_median():
    asked = []

    class Fake:
        peers = {"minires": None}

        def turn_of(self, name, steps):
            asked.append(steps)
            return [9.0, *range(1, steps)]

    case, settings = Case("resnet20", 1), Settings(threads=1, rounds=2, steps=2, many=5)
    seconds = steps.take_turns(Fake(), steps.settings_of("inference", case, settings))
    assert asked == [3, 6, 6]
    assert steps.kept("inference", case, seconds) == {"minires": [[3], [3]]}
    for job, other in (("train", case), ("inference", Case("resnet20", 2))):
        assert steps.settings_of(job, other, settings) == settings
        assert steps.kept(job, other, seconds) == seconds


def test_several_peers_work_at_once():
    waits = (
        FACTS + "import time\ninput()\nbegin = time.time()\ntime.sleep(0.3)\nprint([begin, time.time()], flush=True)"
    )
    with Table([peer("A", waits), peer("B", waits)]) as table:
        table.start()
        for one in table.peers.values():
            one.send(steps=1)
        (a, b), (c, d) = (one.answer() for one in table.peers.values())
    assert max(a, c) < min(b, d)


def test_a_turn_has_so_many_steps_and_lasts_so_long():
    task = {"job": "inference", "peer": "minires", "model": "resnet8", "batch": 1}
    with Peer("minires", task, threads=1) as worker:
        worker.start()
        assert len(worker.ask(steps=2)) == 2
        assert sum(worker.ask(steps=2, seconds=0.2)) > 0.15
        assert len(worker.ask(steps=20, seconds=0.001)) == 20


def test_a_worker_trains_and_measures_memory():
    case = Case("resnet8", 2)
    for job in ("train", "memory"):
        task = {"job": job, "peer": "minires", "model": case.model, "batch": case.batch}
        with Peer("minires", task, threads=1) as worker:
            assert worker.start()["parameters"] == 75290
            answer = worker.ask(steps=2)
        if job == "train":
            assert len(answer) == 2
            assert min(answer) > 0
        else:
            assert 0 < answer["before"] < answer["peak"]
            assert answer["after"] <= answer["peak"]


def test_a_library_that_is_not_installed_is_said_so(tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError(\"No module named 'jax'\")")
    task = {"job": "train", "peer": "JAX", "model": "resnet20", "batch": 2}
    left_out = pytest.raises(PeerError, match=r"^JAX is left out: No module named 'jax' \(pip install -e '\.\[bench\]'")
    with Peer("JAX", task, threads=1, env={"PYTHONPATH": str(tmp_path)}) as absent, left_out:
        absent.start()
