import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import ConfigError, ShapeError


def weight(*shape, dtype=np.float32):
    return mr.tensor(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("fill", "std", "uniform"),
    [
        (lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), np.sqrt(2 / 540), False),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), np.sqrt(2 / 720), False),
        (lambda w: nn.init.kaiming_uniform_(w, a=np.sqrt(5)), 1 / np.sqrt(3 * 540), True),
        (lambda w: nn.init.kaiming_uniform_(w, nonlinearity="tanh"), 5 / 3 / np.sqrt(540), True),
        (lambda w: nn.init.xavier_normal_(w), np.sqrt(2 / 1260), False),
        (lambda w: nn.init.xavier_uniform_(w, gain=2.0), 2 * np.sqrt(2 / 1260), True),
        (lambda w: nn.init.normal_(w, std=0.5), 0.5, False),
        (lambda w: nn.init.uniform_(w, -1, 1), 1 / np.sqrt(3), True),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_deviation(fill, std, uniform, dtype):
    mr.manual_seed(0)
    w = weight(80, 60, 3, 3, dtype=dtype)
    assert fill(w) is w
    assert w.dtype == dtype
    assert w.data.std() == pytest.approx(std, rel=0.02)
    assert abs(w.data.mean()) < 0.02 * std
    assert (np.abs(w.data).max() <= std * np.sqrt(3) * 1.0001) == uniform


def test_shift_and_constants():
    mr.manual_seed(0)
    w = weight(100, 100)
    assert nn.init.normal_(w, mean=3.0).data.mean() == pytest.approx(3, abs=0.05)
    assert nn.init.uniform_(w, 2, 3).data.min() >= 2
    assert (nn.init.constant_(w, 7).data == 7).all()
    assert (nn.init.ones_(w).data == 1).all()
    assert not nn.init.zeros_(w).data.any()


def test_any_memory_order_and_the_seed():
    base = np.zeros((6, 8, 10), np.float32)
    for view in (base, base.transpose(2, 0, 1), base[::2, :, 1:5]):
        draws = []
        for _ in range(2):
            mr.manual_seed(1)
            draws.append(nn.init.normal_(mr.from_numpy(view)).data.copy())
        assert np.array_equal(*draws)
        assert draws[0].std() == pytest.approx(1, abs=0.2)


def test_gains_are_torchs():
    torch = pytest.importorskip("torch")
    for name in nn.init.GAINS:
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert nn.init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


def test_refusals():
    with pytest.raises(ConfigError, match=r"'rellu' \(did you mean relu"):
        nn.init.kaiming_normal_(weight(3, 3), nonlinearity="rellu")
    with pytest.raises(ConfigError, match="not 'fan_avg'"):
        nn.init.kaiming_normal_(weight(3, 3), mode="fan_avg")
    with pytest.raises(ShapeError, match="two dimensions"):
        nn.init.xavier_normal_(weight(3))
