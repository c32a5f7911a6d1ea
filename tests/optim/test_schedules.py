import json

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import ConfigError
from minires.optim import (
    SGD,
    CosineAnnealingLR,
    ErrorWarmup,
    LinearWarmup,
    LRSchedule,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLinearLR,
)


def optimizer():
    """Two groups, of learning rates 0.1 and 0.4."""
    a, b = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))
    return SGD([{"params": [a]}, {"params": [b], "lr": 0.4}], lr=0.1)


def torch_optimizer(torch):
    a, b = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    return torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.4}], lr=0.1)


def walk(schedule, opt, steps):
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in opt.param_groups])
        schedule.step()
    return np.array(rates)


PAIRS = {  # ours(optimizer), torch's(torch.optim.lr_scheduler, optimizer), steps
    "multi-step": (lambda o: MultiStepLR(o, [7, 3], 0.5), lambda s, o: s.MultiStepLR(o, [3, 7], 0.5), 10),
    "cosine": (lambda o: CosineAnnealingLR(o, 8, 0.01), lambda s, o: s.CosineAnnealingLR(o, 8, 0.01), 17),
    "one cycle": (
        lambda o: OneCycleLR(o, 0.5, 20),
        lambda s, o: s.OneCycleLR(o, 0.5, total_steps=20, cycle_momentum=False),
        20,
    ),
    "one cycle, linear": (
        lambda o: OneCycleLR(o, [0.5, 2.0], 21, 0.4, "linear", 10.0, 100.0),
        lambda s, o: s.OneCycleLR(
            o, [0.5, 2.0], 21, None, None, 0.4, "linear", False, div_factor=10, final_div_factor=100
        ),
        21,
    ),
    "warm-up, then cosine": (
        lambda o: LinearWarmup(CosineAnnealingLR(o, 10), 5, start_factor=0.1),
        lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 5), s.CosineAnnealingLR(o, 10)], [5]),
        15,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.filterwarnings("ignore:Detected call of")  # torch wants opt.step() before schedule.step()
def test_rates_are_torchs(name):
    torch = pytest.importorskip("torch")
    make, torch_make, steps = PAIRS[name]
    ours, theirs = optimizer(), torch_optimizer(torch)
    ours = walk(make(ours), ours, steps)
    theirs = walk(torch_make(torch.optim.lr_scheduler, theirs), theirs, steps)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_known_values():
    assert MultiStepLR(optimizer(), [3, 7]).lr_at(5, group=1) == pytest.approx(0.04)
    cosine = CosineAnnealingLR(optimizer(), 10)
    assert [cosine.lr_at(t) for t in (0, 5, 10)] == pytest.approx([0.1, 0.05, 0.0])
    cycle = OneCycleLR(optimizer(), 0.5, 101, pct_start=51 / 101)
    assert [cycle.lr_at(t) for t in (0, 50, 100, 1000)] == pytest.approx([0.02, 0.5, 0.02 / 1e4, 0.02 / 1e4])


def test_piecewise_linear():
    opt = optimizer()
    schedule = PiecewiseLinearLR(opt, [0, 5, 24], [0, 1, 0])
    assert opt.param_groups[1]["lr"] == 0
    assert [schedule.lr_at(t, 1) for t in (1, 5, 24, 30)] == pytest.approx([0.08, 0.4, 0, 0])
    assert schedule.lr_at(5 + 19 / 2) == pytest.approx(0.05)


def test_warm_up_goes_with_any_schedule():
    schedule = LinearWarmup(MultiStepLR(optimizer(), [10]), 4, start_factor=0.0)
    assert [schedule.lr_at(t) for t in (0, 1, 4, 13, 14)] == pytest.approx([0, 0.025, 0.1, 0.1, 0.01])
    assert LinearWarmup(MultiStepLR(optimizer(), [10]), 0).lr_at(0) == 0.1


@pytest.mark.parametrize("name", PAIRS)
def test_a_saved_position_is_all_there_is(name):
    make = PAIRS[name][0]
    first, again = optimizer(), optimizer()
    schedule, resumed = make(first), make(again)
    walk(schedule, first, 6)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.position == 6
    assert np.array_equal(walk(schedule, first, 4), walk(resumed, again, 4))
    assert first.param_groups[0]["lr"] == schedule.lr_at(10) == schedule.get_last_lr()[0]


ERRORS = [0.9, 0.9, 0.7, 0.9, 0.75, 0.7, 0.9, 0.9, 0.9, 0.9]  # the mean of two is below 0.8 after the sixth


@pytest.mark.parametrize("stop", range(10))
def test_a_warm_up_until_the_network_has_begun_to_learn(stop):
    """As in He et al. 2015, §4.2: 0.01 until the training error is below 80 %, then the schedule as if nothing had been."""

    def make():
        opt = optimizer()
        return opt, ErrorWarmup(MultiStepLR(opt, [7, 9]), factor=0.1, error=0.8, window=2)

    opt, schedule = make()
    rates = []
    for step, error in enumerate(ERRORS):
        if step == stop:  # its state is all there is
            state = json.loads(json.dumps(schedule.state_dict()))
            opt, schedule = make()
            schedule.load_state_dict(state)
        rates.append([group["lr"] for group in opt.param_groups])
        schedule.step(error)
    expected = np.array([0.01] * 6 + [0.1] + [0.01] * 2 + [0.001])
    np.testing.assert_allclose(rates, np.stack([expected, 4 * expected], 1))
    with pytest.raises(ConfigError, match="the state is that of another schedule"):
        schedule.load_state_dict(MultiStepLR(opt, [1]).state_dict())
    with pytest.raises(ConfigError, match="takes the training error of the step"):
        make()[1].step()


def test_refusals():
    opt = optimizer()
    for make, says in [
        (lambda: CosineAnnealingLR(opt, 0), "T_max must be above 0, not 0"),
        (lambda: OneCycleLR(opt, 0.1, -5), "total_steps must be above 0"),
        (lambda: OneCycleLR(opt, 0.1, 5, pct_start=2), "pct_start.* not 2"),
        (lambda: OneCycleLR(opt, [0.1], 5), "1 values of max_lr for 2"),
        (lambda: OneCycleLR(opt, 0.1, 5, anneal_strategy="cosine"), "not 'cosine'"),
        (lambda: PiecewiseLinearLR(opt, [0, 5], [1]), "not 1 for 2"),
        (lambda: PiecewiseLinearLR(opt, [5, 5], [1, 0]), "must rise"),
        (lambda: LinearWarmup(MultiStepLR(opt, [1]), -1), "steps must be 0 or more"),
        (lambda: ErrorWarmup(MultiStepLR(opt, [1]), 0.1, error=80), "error is a fraction of the images .* not 80"),
        (lambda: ErrorWarmup(MultiStepLR(opt, [1]), 0.0), "factor must be above 0"),
    ]:
        with pytest.raises(ConfigError, match=says):
            make()
    late = MultiStepLR(optimizer(), [1])
    late.optimizer.add_param_group({"params": mr.tensor(np.zeros(3, np.float32), requires_grad=True)})
    with pytest.raises(
        ConfigError, match="3 parameter groups, and had 2 when this schedule was made: add groups first"
    ):
        late.step()
    schedule = MultiStepLR(opt, [1])
    with pytest.raises(ConfigError, match="of 1 parameter groups, and the optimizer has 2"):
        schedule.load_state_dict({"position": 0, "base_lrs": [0.1]})
    with pytest.raises(NotImplementedError):
        LRSchedule(opt)


def test_a_gamma_whose_powers_no_float_holds():
    with pytest.raises(ConfigError, match=r"gamma = 1e\+300 to the power of 2, the number of milestones, is too large"):
        MultiStepLR(optimizer(), [3, 7], 1e300)
    assert MultiStepLR(optimizer(), [3], 1e300).lr_at(5) > 1e290


def test_schedules_that_need_the_error_are_outermost():
    optimizer = SGD(mr.nn.Linear(2, 2).parameters(), lr=0.1)
    inner = ErrorWarmup(MultiStepLR(optimizer, [10]), 0.1)
    for make in (lambda: LinearWarmup(inner, 5), lambda: ErrorWarmup(inner, 0.1)):
        with pytest.raises(
            ConfigError, match="of an ErrorWarmup would not tell it the errors: put the ErrorWarmup outside"
        ):
            make()
    assert ErrorWarmup(LinearWarmup(MultiStepLR(optimizer, [10]), 5), 0.1).lr_at(0) > 0
