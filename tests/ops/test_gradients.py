"""Every differentiable function: gradients against finite differences, values and gradients against PyTorch."""

import numpy as np
import pytest
from op_cases import CASES, EVERY, IDS

import minires as mr
from minires import functional as F
from minires.gradcheck.cases import draw

every_case = pytest.mark.parametrize(("name", "case"), EVERY, ids=IDS)


def test_every_function_has_a_case():
    assert set(CASES) == set(F.__all__)
    assert all(CASES.values())
    assert len(set(IDS)) == len(IDS)


@every_case
def test_gradients_against_finite_differences(name, case, backend):
    assert mr.gradcheck(case.ours, draw(case))


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_against_pytorch(name, case, dtype, torch):
    tolerance = {"float32": {"rtol": 2e-4, "atol": 2e-5}, "float64": {"rtol": 1e-9, "atol": 1e-11}}[dtype]
    arrays = draw(case, dtype)
    ours = [mr.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = case.ours(*ours), case.theirs(torch, *theirs)
    assert y.dtype == dtype
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), **tolerance)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    for i, (a, b) in enumerate(zip(ours, theirs)):
        assert a.grad.dtype == dtype
        np.testing.assert_allclose(a.grad, b.grad.numpy(), **tolerance, err_msg=f"gradient of input {i}")


@every_case
def test_back_ends_agree_in_float32(name, case):
    """What training uses: values and gradients of the compiled kernels against those of the reference kernels."""
    results = []
    for backend in ("numba", "reference"):
        with mr.backend(backend):
            inputs = [mr.tensor(a, requires_grad=True) for a in draw(case, np.float32)]
            y = case.ours(*inputs)
            y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32))
            results.append([y.numpy(), *[x.grad for x in inputs]])
    for fast, readable in zip(*results):
        assert fast.dtype == np.float32
        np.testing.assert_allclose(fast, readable, rtol=2e-4, atol=2e-5)


@every_case
def test_only_required_gradients_are_computed(name, case):
    """If only one input requires a gradient, it gets the same one as if all do, and no other input gets any."""
    arrays = draw(case)
    dy = None
    together = [mr.tensor(a, requires_grad=True) for a in arrays]
    y = case.ours(*together)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(dy)
    for i, expected in enumerate(together):
        alone = [mr.tensor(a, requires_grad=i == j) for j, a in enumerate(arrays)]
        case.ours(*alone).backward(dy)
        np.testing.assert_array_equal(alone[i].grad, expected.grad)
        assert all(x.grad is None for j, x in enumerate(alone) if j != i)
