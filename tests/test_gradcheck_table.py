"""The table of cases behind ``minires gradcheck``: complete, correct on both back ends, and reproducible."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.errors import ConfigError
from minires.gradcheck.cases import CASES, check, draw, select

EVERY = select()
IDS = [f"{name}: {case.label}" for name, case in EVERY]
NO_FUNCTIONS = {"fan-out", "SGD", "running statistics"}


def test_every_function_has_a_case():
    assert set(CASES) == {*F.__all__, *NO_FUNCTIONS}
    assert all(CASES.values())
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize(("name", "case"), EVERY, ids=IDS)
def test_every_case_is_correct_and_not_vacuous(name, case, backend):
    result = check(name, case)
    assert result, result.explain()
    assert not result.vacuous
    assert result.largest_error < 1e-7
    for checked, array in zip(result.checked, draw(case), strict=True):
        assert len(checked.differences) == array.size


def test_kinks_are_where_the_table_puts_them():
    for name, case in EVERY:
        if case.label in ("at 0", "a tie"):
            assert check(name, case).kinks


def test_a_check_is_reproducible_and_leaves_the_generator_unchanged():
    mr.manual_seed(5)
    before = mr.random.get_rng_state()
    (_, case), *_ = select(["dropout"])
    assert check("dropout", case).to_dict() == check("dropout", case).to_dict()
    assert mr.random.get_rng_state() == before


def test_a_case_that_raises_is_wrong(monkeypatch):
    def broken(x):
        raise RuntimeError("no such instruction")

    ((_, case),) = select(["exp"])
    result = check("exp", case._replace(function=broken))
    assert not result
    assert result.explain() == "RuntimeError: no such instruction"


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"no operation 'conv2' in the table \(did you mean conv2d"):
        select(["conv2"])


def test_images_are_stored_channels_last():
    ((_, case),) = select(["global_avg_pool2d"])
    (x,) = draw(case)
    assert x.dtype == np.float64
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous
