"""A mistake of the bug zoo stays in its block and its thread: nothing of it is left, whatever happens inside."""

import threading

import numpy as np
import pytest

import minires as mr
from minires import lab
from minires.errors import ConfigError
from minires.lab.experiments.bugs import injection


def patched():
    """Every function that some mistake replaces, as it is now."""
    points = {(p.owner, p.name) for m in lab.MISTAKES.values() for p in m.patches}
    return {(owner, name): vars(owner).get(name) for owner, name in points}


BEFORE = patched()


@pytest.mark.parametrize("name", list(lab.MISTAKES))
def test_everything_is_restored(name):
    with lab.inject(name):
        assert patched() != BEFORE
    assert patched() == BEFORE
    with pytest.raises(ZeroDivisionError), lab.inject(name):
        raise ZeroDivisionError
    assert patched() == BEFORE
    assert not injection._points
    assert mr.recording.is_on()


def grad_of_relu():
    x = mr.tensor([-1.0, 2.0], requires_grad=True)
    y = x.relu()
    (y + y).backward(np.array([1, -1], np.float32))
    return list(x.grad)


RIGHT, ALL, POSITIVE = [0, -2], [2, -2], [2, 0]


def test_threads_have_mistakes_of_their_own():
    found, inside, done = {}, threading.Barrier(2, timeout=30), threading.Event()

    def other():
        found["before"] = grad_of_relu()
        with lab.inject("relu-mask-of-gradient"):
            inside.wait()
            done.wait(30)  # the main thread has left its block
            found["inside"] = grad_of_relu()
        found["after"] = grad_of_relu()

    thread = threading.Thread(target=other)
    with lab.inject("relu-passes-everything"):
        assert grad_of_relu() == ALL
        thread.start()
        inside.wait()
        assert grad_of_relu() == ALL
    assert grad_of_relu() == RIGHT
    done.set()
    thread.join(30)
    assert found == {"before": RIGHT, "inside": POSITIVE, "after": RIGHT}
    assert patched() == BEFORE


def test_one_at_a_time():
    refused = pytest.raises(ConfigError, match="'skip-dropped' is in place already")
    with lab.inject("skip-dropped"), refused, lab.inject("skip-doubled"):
        pass
    assert patched() == BEFORE
    with pytest.raises(ConfigError, match=r"unknown mistake 'skip-droped' \(did you mean skip-dropped"):
        lab.inject("skip-droped")


def test_recorded_steps_neither_hide_it_nor_keep_it():
    model = mr.models.resnet8(width=4)
    step, labels = mr.RecordedStep(model), np.array([1, 4, 1])
    images = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)

    def conv_grad():
        step(images, labels)
        return model.conv1.weight.grad.copy()

    for _ in range(4):
        right = conv_grad()
    assert step.state == "checked"
    with lab.inject("skip-dropped"):
        wrong = [conv_grad() for _ in range(4)]
        fresh = mr.RecordedStep(model)
        for _ in range(4):
            fresh(images, labels)
        assert fresh.state == "waiting"
    assert not any(np.allclose(w, right, rtol=1e-3) for w in wrong)
    np.testing.assert_array_equal(conv_grad(), right)
