"""Settings that all tests share: Hypothesis, the two back ends, PyTorch where it is installed."""

import os

import errors_page
import pytest
from hypothesis import HealthCheck, settings

from minires import kernels

# No deadline: the first call of a kernel compiles it. The examples are the same in every run; ``fuzz`` draws new ones.
settings.register_profile(
    "suite", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "fuzz", deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(params=sorted(kernels.BACKENDS))
def backend(request):
    """Runs the test on each back end; its name."""
    with kernels.backend(request.param):
        yield request.param


@pytest.fixture(scope="session")
def torch():
    """PyTorch, or the test is skipped."""
    return pytest.importorskip("torch")


@pytest.fixture
def page(request):
    """A function: asserts that a message is what docs/errors.md says of this test."""
    return lambda message: errors_page.compare(request.node.nodeid, message)
