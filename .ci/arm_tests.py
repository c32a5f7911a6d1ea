"""What ``.ci/arm`` adds to the kernels' tests: few examples of each property, a training step, and what ran where.

It is a plugin of pytest (``-p arm_tests``) and a file of tests.
"""

import platform
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "arm", deadline=None, max_examples=8, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
largest = {}  # what a step was compared with -> its largest difference


def test_the_target_is_neon():
    from minires.kernels.runtime import target

    assert platform.machine() == "aarch64"
    assert target.KIND == "neon"


def operations(tensor):
    """The names of all operations that made it."""
    names, waiting = set(), [tensor]
    while waiting:
        op = waiting.pop().op
        if op is not None:
            names.add(op.name)
            waiting += op.inputs
    return names


def step(dtype):
    """ResNet-8 after a step of SGD: which operations that were, and the loss, all gradients and all that has a state."""
    import minires as mr
    from minires import functional as F

    mr.manual_seed(0)
    rng = np.random.default_rng(0)
    model = mr.models.resnet8(num_classes=10).to(dtype)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    x = mr.tensor(rng.standard_normal((16, 3, 32, 32)).astype(dtype))
    loss = F.cross_entropy(model(x), rng.integers(0, 10, 16), label_smoothing=0.1)
    names = operations(loss)
    loss.backward()
    found = {"loss": loss.numpy()} | {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    optimizer.step()
    found |= {name: np.asarray(value) for name, value in model.state_dict().items()}
    model.eval()
    with mr.no_grad():
        found["logits afterwards"] = model(x).numpy()
    return names, found


FUSED = {"batch_norm_relu", "batch_norm_add_relu"}


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 1e-5), (np.float64, 1e-12)], ids=["float32", "float64"])
def test_a_fused_step_of_resnet8(dtype, most):
    """Beside the reference back end and beside the same kernels op by op: the difference's norm over the norm, of each array.

    Measured: 2.2e-6 and 2.5e-14 at most.
    """
    import minires as mr

    names, fused = step(dtype)
    assert names >= FUSED
    for other, switched in {"the reference back end": mr.backend("reference"), "op by op": mr.fusion(False)}.items():
        with switched:
            names, expected = step(dtype)
        assert not names & FUSED
        assert fused.keys() == expected.keys()
        errors = {}
        for name, value in expected.items():
            assert fused[name].dtype == value.dtype, name
            assert fused[name].shape == value.shape, name
            wide = value.astype(np.float64)
            errors[name] = np.linalg.norm(fused[name] - wide) / max(np.linalg.norm(wide), np.finfo(dtype).tiny)
        worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
        largest[f"{np.dtype(dtype)}, {other}"] = f"{errors[worst]:.1e} ({worst})"
        assert errors[worst] <= most, (other, worst)


def pytest_terminal_summary(terminalreporter):
    import llvmlite
    import numba

    from minires.kernels.runtime import target

    ran, seconds = {}, Counter()
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.getreports(outcome):
            file = report.nodeid.split("::")[0]
            ran.setdefault(file, Counter())[outcome] += 1
            seconds[file] += report.duration
    terminalreporter.section("what ran on Arm")
    for file, outcomes in sorted(ran.items()):
        counts = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())
        terminalreporter.write_line(f"{file}: {counts}, {seconds[file]:.0f} s")
    for other, difference in largest.items():
        terminalreporter.write_line(f"fused step of ResNet-8, {other}: largest difference {difference}")
    terminalreporter.write_line(
        f"target {target.KIND}, {target.CPU_NAME} ({platform.machine()}, emulated), Numba {numba.__version__}, "
        f"llvmlite {llvmlite.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"
    )
