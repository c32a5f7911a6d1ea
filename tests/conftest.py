"""What all tests share: Hypothesis' settings, threads, the two back ends, PyTorch where it is installed."""

import gc
import os

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


def pytest_collection_finish():
    """What is there by now stays: thousands of tests, PyTorch, Numba. Every search for garbage would go through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=sorted(kernels.BACKENDS))
def backend(request):
    """Runs the test on each back end; its name."""
    with kernels.backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def number_of_threads(request):
    """What a test sets is put back. Where all is tiny there is one: starting others takes longer than computing, ten times
    so on a busy machine."""
    before = mr.get_num_threads()
    if request.path.parent.name in ("models", "training"):
        mr.set_num_threads(1)
    yield
    mr.set_num_threads(before)


@pytest.fixture(scope="session")
def torch():
    """PyTorch, or the test is skipped."""
    return pytest.importorskip("torch")


@pytest.fixture
def page(request):
    """A function: asserts that a message is what docs/errors.md says of this test."""
    return lambda message: errors_page.compare(request.node.nodeid, message)


def forget_choices():
    """Which algorithm a convolution takes is remembered by its shapes."""
    from minires.kernels.convolution import dispatch, winograd_plan

    winograd_plan.least_side.cache_clear()
    dispatch._faster.cache_clear()


@pytest.fixture
def fresh_choices():
    """A function that forgets which convolutions use the Winograd algorithm, as before and after the test."""
    forget_choices()
    yield forget_choices
    forget_choices()


@pytest.fixture
def winograd_taken(fresh_choices):
    """As on a target where Winograd is faster from 16 channels, 4×4 maps and 32 tiles on: the uses it was taken for."""
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
