"""Shared by all tests: Hypothesis settings, threads, the two back ends, and PyTorch if it is installed."""

import gc
import os
import signal

import errors_page
import pytest
from hypothesis import HealthCheck, settings

import minires as mr
from minires import kernels

# No deadline: the first call of a kernel compiles it. The examples are the same in every run; ``fuzz`` draws new ones.
settings.register_profile(
    "suite", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "fuzz", deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# A shell starts `pytest &` in a script with Ctrl-C ignored, and what is ignored is inherited by the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Two processes for the whole suite, most of whose tests keep one core busy; none for tests that are named."""
    named = config.args_source is config.ArgsSource.ARGS
    return 0 if named or config.option.usepdb else min(2, os.cpu_count() or 1)


def pytest_collection_finish():
    """Freeze what exists by now (thousands of tests, PyTorch, Numba), so that garbage collections do not scan it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=sorted(kernels.BACKENDS))
def backend(request):
    """The name of the current back end; the test runs on each of them."""
    with kernels.backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def number_of_threads(request):
    """Restores the number of threads after each test.

    Tests with tiny arrays run on one: starting others takes longer than computing, ten times as long on a busy machine.
    """
    before = mr.get_num_threads()
    if request.path.parent.name in ("models", "training"):
        mr.set_num_threads(1)
    yield
    mr.set_num_threads(before)


@pytest.fixture(scope="session")
def torch():
    """PyTorch; the test is skipped if it is not installed."""
    return pytest.importorskip("torch")


@pytest.fixture
def page(request):
    """A function that asserts that a message is the one in docs/errors.md for this test."""
    return lambda message: errors_page.compare(request.node.nodeid, message)


def forget_choices():
    """Clear the caches of which algorithm a convolution uses."""
    from minires.kernels.convolution import dispatch, winograd_plan

    winograd_plan.least_side.cache_clear()
    dispatch._faster.cache_clear()


@pytest.fixture
def fresh_choices():
    """A function that clears the caches of which algorithm a convolution uses; also called before and after the test."""
    forget_choices()
    yield forget_choices
    forget_choices()


@pytest.fixture
def winograd_taken(fresh_choices):
    """As on a target where Winograd is faster from 16 channels, 4×4 maps and 32 tiles on: the list of uses it was taken for."""
    from minires.kernels.convolution import dispatch, winograd_plan
    from minires.kernels.convolution.winograd_table import USES
    from minires.kernels.runtime import target

    taken, choose = [], dispatch._choose

    def spy(direct, other, use, *shapes):
        chosen = choose(direct, other, use, *shapes)
        if chosen is other:
            taken.append(use)
        return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(winograd_plan.GAINS, target.KIND, {use: {16: {4: 2.0}} for use in USES})
        patch.setattr(winograd_plan, "least_tiles", lambda *_: 32)
        patch.setattr(dispatch, "_choose", spy)
        yield taken
