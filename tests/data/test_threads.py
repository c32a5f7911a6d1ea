"""Functions of many items in threads, and what the threads may hold together."""

import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest

from minires.data.images import photographs
from minires.data.threads import Quota, in_threads


def test_results_are_in_order_and_the_first_error_is_raised():
    def square(i):
        if i >= 17:
            raise ValueError(f"no {i}")
        return i * i

    assert list(in_threads(square, range(17), workers=3)) == [i * i for i in range(17)]
    results = in_threads(square, range(50), workers=3)
    assert [next(results) for _ in range(17)] == [i * i for i in range(17)]
    with pytest.raises(ValueError, match="no 17"):
        next(results)


def test_threads_share_a_quota():
    quota, inside = Quota(10), []

    def hold(amount):
        with quota.take(amount):
            inside.append(amount)
            assert sum(inside) <= 10
            inside.remove(amount)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, [5, 5, 7, 3, 9, 2] * 20, timeout=60))
    met = threading.Barrier(2, timeout=30)

    def meet(amount):
        with quota.take(amount):
            met.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(meet, [6, 4], timeout=60))  # both fit at the same time


def test_more_than_there_is_waits_for_all_and_an_error_gives_it_back():
    quota = Quota(10)
    with pytest.raises(KeyError), quota.take(1000):
        raise KeyError
    with quota.take(10):
        waiting = threading.Thread(target=lambda: quota.take(1).__enter__())
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    image = pytest.importorskip("PIL.Image")
    file = BytesIO()
    image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file, "PNG")
    decoding, most, convert = [], [], photographs._rgb

    def rgb(*args):
        decoding.append(1)
        most.append(len(decoding))
        threading.Event().wait(0.01)
        decoding.pop()
        return convert(*args)

    monkeypatch.setattr(photographs, "_rgb", rgb)
    for amount, at_once in ((3 * 1200, 3), (2399, 1)):
        monkeypatch.setattr(photographs, "DECODED_AT_ONCE", Quota(amount))
        most.clear()
        images = list(in_threads(lambda _: photographs.decode_image(file.getvalue(), "x"), range(12), workers=4))
        assert len(images) == 12
        assert max(most) <= at_once
    monkeypatch.setattr(photographs, "DECODED_AT_ONCE", Quota(1200))
    assert photographs.decode_image(file.getvalue(), "x").shape == (30, 40, 3)
