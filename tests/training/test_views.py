import numpy as np
import pytest

from minires.data import Loader
from minires.training import Mean, evaluate
from minires.training.views import VIEWS, predictions, views


def images(n=3, side=5):
    return np.random.default_rng(0).standard_normal((n, side, side, 2)).transpose(0, 3, 1, 2).astype(np.float32)


def test_six_views_against_loops():
    """Half of the weight is on the image and its mirror image, half on those moved by a pixel, mirrored at the border."""
    x = images()
    found = views(x, "views6")
    assert sum(weight for weight, _ in found) == 1

    def at(i, n):
        return -i if i < 0 else 2 * (n - 1) - i if i >= n else i

    for move, share in ((0, 0.5), (-1, 0.25), (1, 0.25)):
        moved = np.empty_like(x)
        for h in range(5):
            for w in range(5):
                moved[:, :, h, w] = x[:, :, at(h + move, 5), at(w + move, 5)]
        mine = [weight for weight, view in found if np.array_equal(view, moved)]
        mirrored = [weight for weight, view in found if np.array_equal(view, moved[..., ::-1])]
        assert mine == mirrored == [share / 2]


def test_a_prediction_that_sees_no_views_is_the_plain_one():
    x = images()
    for name in VIEWS:
        plain, mean = predictions(lambda v: v.mean((2, 3)) * 0 + 7, x, name)
        np.testing.assert_allclose(mean, np.full((3, 2), 7), rtol=1e-6)
        np.testing.assert_array_equal(plain, np.full((3, 2), 7))
    plain, mean = predictions(lambda v: v.sum((2, 3)), x, "none")
    np.testing.assert_array_equal(mean, x.sum((2, 3)))
    np.testing.assert_array_equal(predictions(lambda v: v.sum((2, 3)), x, "views6")[0], plain)


@pytest.mark.parametrize("tta", VIEWS)
def test_evaluation(make_trainer, tiny, tta):
    """Against the mean of the logits of every view, by the plain model."""
    trainer = make_trainer()
    model = trainer.model.eval()
    plain = Mean()
    found = evaluate(model, Loader(tiny[1], 8, shuffle=False), tta=tta, plain=plain)
    alone = evaluate(model, Loader(tiny[1], 8, shuffle=False))
    assert (plain.correct, plain.loss) == (alone.correct, alone.loss)
    [(x, labels)] = Loader(tiny[1], 20, shuffle=False)
    from minires import tensor

    logits = sum(weight * model(tensor(view)).numpy() for weight, view in views(x, tta))
    assert found.correct == (logits.argmax(1) == labels).sum()
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(20), labels]
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
