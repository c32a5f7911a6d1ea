"""Where tensors behave like arrays, and the recording mode in threads."""

import threading

import numpy as np
import pytest

import minires as mr


def leaf(values):
    return mr.tensor(np.array(values), requires_grad=True)


class TestLikeAnArray:
    def test_rows_can_be_iterated_over_and_unpacked(self):
        x = leaf([[1.0, 2.0], [3.0, 4.0]])
        first, second = x
        assert [row.shape for row in x] == [(2,), (2,)]
        (first * 2 + second).sum().backward()
        assert x.grad.tolist() == [[2.0, 2.0], [1.0, 1.0]]

    def test_byte_order_becomes_native(self):
        values = np.array([1.5, -2.0, 3e7])
        for order in "<>":
            x = mr.tensor(values.astype(f"{order}f4"))
            assert x.dtype == np.float32
            assert x.numpy().dtype.isnative
            np.testing.assert_array_equal((x * 2).numpy(), values * 2)

    def test_asarray_is_a_view(self):
        x = leaf([1.0, 2.0])
        assert np.asarray(x) is x.data or np.shares_memory(np.asarray(x), x.data)
        assert np.asarray(x, dtype=np.float32).dtype == np.float32

    def test_a_tensor_is_an_index(self):
        assert leaf([1.0, 2.0, 3.0])[mr.tensor([2, 0])].numpy().tolist() == [3.0, 1.0]

    def test_an_index_array_may_change_before_backward(self):
        x, index = leaf([1.0, 2.0, 3.0]), np.array([2, 0])
        y = x[index]
        index[:] = 1
        y.sum().backward()
        assert x.grad.tolist() == [1.0, 0.0, 1.0]

    def test_integers_end_the_graph(self):
        assert not leaf([1.5]).astype(np.int64).requires_grad
        assert leaf([1.5]).astype(np.float32).requires_grad


class TestSettingTheMode:
    def test_as_a_statement(self):
        mr.set_grad_enabled(False)
        try:
            assert not mr.is_grad_enabled()
        finally:
            mr.set_grad_enabled(True)
        assert mr.is_grad_enabled()

    def test_one_decorated_function_in_two_threads(self):
        """A stack shared by both would be popped in the wrong order."""
        entered, leave = threading.Event(), threading.Event()

        @mr.no_grad()
        def wait(inside):
            entered.set()
            if inside:
                leave.wait(10)

        other = threading.Thread(target=wait, args=(True,))
        with mr.no_grad():
            other.start()
            entered.wait(10)
        wait(False)
        leave.set()
        other.join()
        assert mr.is_grad_enabled()


def test_backward_takes_only_gradients_of_the_tensors_dtype():
    y = mr.tensor([1.0, 2.0], requires_grad=True) * 2
    with pytest.raises(mr.errors.DtypeError, match=r"float64 .*float32"):
        y.backward(np.ones(2))
