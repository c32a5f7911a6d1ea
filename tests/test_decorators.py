"""The switches as decorators: of functions, generators and coroutines, and what is in force outside of these meanwhile."""

import asyncio
from contextlib import contextmanager

import numpy as np
import pytest

import minires as mr
from minires import kernels
from minires.errors import AnomalyError, ConfigError
from minires.grad_mode import watcher
from minires.kernels.switches import uses_winograd
from minires.lazy import is_fusing

CASES = [  # (a decorator, what is in force, its value inside the decorated function, outside)
    pytest.param(mr.no_grad, mr.is_grad_enabled, False, True, id="no_grad"),
    pytest.param(lambda: mr.set_grad_enabled(False), mr.is_grad_enabled, False, True, id="set_grad_enabled"),
    pytest.param(lambda: mr.fusion(False), is_fusing, False, True, id="fusion"),
    pytest.param(lambda: mr.winograd(False), uses_winograd, False, True, id="winograd"),
    pytest.param(lambda: mr.backend("reference"), kernels.get_backend, "reference", "numba", id="backend"),
    pytest.param(mr.detect_anomaly, lambda: watcher() is not None, True, False, id="detect_anomaly"),
]
EACH = pytest.mark.parametrize(("decorator", "force", "inside", "outside"), CASES)


@EACH
def test_decorating_changes_nothing_yet(decorator, force, inside, outside):
    decorated = decorator()(force)
    assert force() == outside
    assert decorated() == decorated() == inside
    assert force() == outside


@EACH
def test_a_generator(decorator, force, inside, outside):
    seen = []

    @decorator()
    def generator(first):
        """Says what is in force at each resumption."""
        try:
            seen.append(force())
            received = yield first
            seen.append(force())
            try:
                yield received
            except KeyError:
                seen.append(force())
            yield "caught"
        finally:
            seen.append(force())

    assert generator.__doc__ == "Says what is in force at each resumption."
    steps = generator("first")
    assert next(steps) == "first"
    assert force() == outside
    assert steps.send("sent") == "sent"
    assert force() == outside
    assert steps.throw(KeyError) == "caught"
    assert force() == outside
    steps.close()
    assert force() == outside
    assert seen == [inside] * 4


@EACH
def test_a_coroutine(decorator, force, inside, outside):
    seen = []

    @decorator()
    async def inner():
        seen.append(("inside", force()))
        await asyncio.sleep(0)
        seen.append(("inside", force()))
        return "result"

    async def other():
        seen.append(("outside", force()))

    async def both():
        return await asyncio.gather(inner(), other())

    assert asyncio.run(both()) == ["result", None]
    assert seen == [("inside", inside), ("outside", outside), ("inside", inside)]


def test_results_and_errors_pass():
    @mr.no_grad()
    def generator():
        yield 1
        return 2

    def delegating():
        return (yield from generator())

    steps = delegating()
    assert next(steps) == 1
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == 2

    @mr.no_grad()
    def failing():
        yield 1
        raise ZeroDivisionError

    steps = failing()
    next(steps)
    with pytest.raises(ZeroDivisionError):
        next(steps)
    assert mr.is_grad_enabled()


def test_decorators_of_a_generator_add_up():
    @mr.no_grad()
    @mr.winograd(False)
    def generator():
        yield mr.is_grad_enabled(), uses_winograd()
        with mr.enable_grad():
            yield mr.is_grad_enabled()
        yield mr.is_grad_enabled()

    steps = generator()
    assert next(steps) == (False, False)
    assert (mr.is_grad_enabled(), uses_winograd()) == (True, True)
    assert list(steps) == [True, False]
    assert mr.is_grad_enabled()


def test_enable_grad_within_no_grad():
    @mr.enable_grad()
    def generator():
        yield (mr.tensor([1.0], requires_grad=True) * 2).requires_grad

    with mr.no_grad():
        assert list(generator()) == [True]
        assert not mr.is_grad_enabled()


def test_an_asynchronous_generator_is_refused(page):
    async def batches():
        yield 1

    with pytest.raises(ConfigError) as caught:
        mr.no_grad()(batches)
    page(str(caught.value))


class TestSetGradEnabled:
    def test_one_object_decorates_twice(self):
        decorator = mr.set_grad_enabled(False)
        first, second = decorator(mr.is_grad_enabled), decorator(mr.is_grad_enabled)
        assert mr.is_grad_enabled()
        assert (first(), second()) == (False, False)
        assert mr.is_grad_enabled()

    def test_one_object_is_entered_again(self):
        off = mr.set_grad_enabled(False)
        for _ in range(2):
            with off:
                assert not mr.is_grad_enabled()
                with off:
                    assert not mr.is_grad_enabled()
                assert not mr.is_grad_enabled()
            assert mr.is_grad_enabled()


def test_detect_anomaly_looks_into_a_generator():
    @contextmanager
    @mr.detect_anomaly()
    def watched():
        yield
        mr.functional.log(mr.tensor([0.0]))

    with np.errstate(divide="ignore"), pytest.raises(AnomalyError), watched():
        mr.functional.log(mr.tensor([0.0]))  # outside of the generator: nobody looks
