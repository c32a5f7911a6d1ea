"""The tape: what is recorded, how gradients are summed, hooks, and errors on misuse."""

import gc
import threading

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.errors import DtypeError, GraphError, ShapeError


def leaf(*values):
    return mr.tensor(np.array(values), requires_grad=True)


class TestGradients:
    def test_fan_out_sums(self):
        x = leaf(3.0)
        y = x * 2
        (y * y + y + y * x).sum().backward()  # 4x² + 2x + 2x²
        assert x.grad.tolist() == [12 * 3.0 + 2]

    def test_two_skips_that_cross(self):
        """v1 → v3 and v2 → v5: the graph is not a tree of nested blocks."""
        v1 = leaf(2.0)
        v2 = v1 * 3
        v3 = v2 * v2 + v1
        v4 = v3 * 5
        (v4 + v2 * v4).sum().backward()  # L = 5(9x² + x)(1 + 3x)
        x = 2.0
        assert v1.grad.tolist() == [5 * ((18 * x + 1) * (1 + 3 * x) + 3 * (9 * x * x + x))]

    def test_a_tensor_used_twice_in_one_operation(self):
        x = leaf(3.0)
        (x * x).sum().backward()
        np.testing.assert_array_equal(x.grad, [6.0])
        y = leaf(3.0)
        (y + y).sum().backward()
        np.testing.assert_array_equal(y.grad, [2.0])

    def test_an_unused_branch_is_ignored(self):
        x = leaf(1.0)
        y = x * 2
        y.exp()
        y.sum().backward()
        assert x.grad.tolist() == [2.0]

    def test_gradients_accumulate_over_backwards(self):
        x = leaf(1.0, 2.0)
        for _ in range(3):
            (x * 2).sum().backward()
        assert x.grad.tolist() == [6.0, 6.0]

    def test_a_given_cotangent(self):
        x = leaf(1.0, 2.0)
        (x * x).backward([1, 10])
        assert x.grad.tolist() == [2.0, 40.0]
        x.grad = None
        (x * x).backward(mr.tensor(np.array([1.0, -1.0])))
        assert x.grad.tolist() == [2.0, -4.0]

    def test_only_leaves_keep_their_gradient_by_default(self):
        x = leaf(1.0)
        y = x * 2
        z = y * 3
        y.retain_grad()
        (z * z).sum().backward()
        assert z.grad is None
        assert y.grad.tolist() == [36.0]
        assert x.grad.tolist() == [72.0]

    @pytest.mark.parametrize("way", ["backward", "no backward"])
    def test_ten_thousand_operations_deep(self, way):
        """Neither the backward pass nor freeing the graph may recurse."""
        x = leaf(1.0)
        y = x
        for i in range(10_000):
            y = y + 1 if i % 2 else y * 1.0
        if way == "backward":
            y.sum().backward()
            assert x.grad.tolist() == [1.0]
        del y
        gc.collect()

    def test_ten_thousand_operations_deep_with_retained_graph(self):
        x = leaf(1.0)
        y = x
        for _ in range(10_000):
            y = F.relu(y)
        y = y.sum()
        y.backward(retain_graph=True)
        y.backward()
        assert x.grad.tolist() == [2.0]


class TestRecording:
    def test_no_grad(self):
        x = leaf(1.0)
        with mr.no_grad():
            y = x * 2
            assert not mr.is_grad_enabled()
            with mr.enable_grad():
                z = x * 2
        assert (y.requires_grad, z.requires_grad, mr.is_grad_enabled()) == (False, True, True)
        assert y.op is None

    def test_set_grad_enabled_and_an_exception(self):
        with pytest.raises(ZeroDivisionError), mr.set_grad_enabled(False):
            raise ZeroDivisionError
        assert mr.is_grad_enabled()

    def test_as_a_decorator_that_calls_itself(self):
        @mr.no_grad()
        def count_down(n):
            assert not mr.is_grad_enabled()
            return count_down(n - 1) if n else leaf(1.0) * 2

        assert not count_down(3).requires_grad
        assert mr.is_grad_enabled()

    def test_threads_do_not_share_the_mode(self):
        seen = {}

        def other():
            seen["there"] = mr.is_grad_enabled()
            with mr.no_grad():
                ready.set()
                go_on.wait(5)
                seen["inside"] = mr.is_grad_enabled()

        ready, go_on = threading.Event(), threading.Event()
        with mr.no_grad():
            thread = threading.Thread(target=other)
            thread.start()
            assert ready.wait(5)
        seen["here"] = mr.is_grad_enabled()  # while the other thread does not record
        go_on.set()
        thread.join()
        assert seen == {"there": True, "inside": False, "here": True}

    def test_constants_record_nothing(self):
        y = mr.tensor([1.0]) * mr.tensor([2.0])
        assert y.op is None

    def test_detach(self):
        x = leaf(2.0)
        y = x * 3
        cut = y.detach()
        assert np.shares_memory(cut.numpy(), y.numpy())
        (cut * x).sum().backward()
        assert x.grad.tolist() == [6.0]  # y counts as the constant 6

    def test_requires_grad_(self):
        x = mr.tensor([1.0])
        assert x.requires_grad_() is x
        assert (x * 2).requires_grad
        with pytest.raises(GraphError, match="leaf"):
            (x * 2).requires_grad_(False)
        with pytest.raises(DtypeError, match="int64"):
            mr.tensor([1]).requires_grad_()
        with pytest.raises(DtypeError, match="int64"):
            mr.tensor([1], requires_grad=True)


class TestHooks:
    def test_a_hook_sees_the_total(self):
        x, seen = leaf(3.0), []
        y = x * 2
        y.register_hook(lambda g: seen.append(g.copy()))
        (y * y + y).sum().backward()
        assert [g.tolist() for g in seen] == [[13.0]]

    def test_a_hook_of_a_leaf_sees_only_this_backward(self):
        x, seen = leaf(3.0), []
        x.register_hook(lambda g: seen.append(g.tolist()))
        for _ in range(2):
            (x * 2 + x).sum().backward()
        assert seen == [[3.0], [3.0]]
        assert x.grad.tolist() == [6.0]

    def test_the_result_of_a_hook_replaces_the_gradient(self):
        x = leaf(3.0)
        y = x * 2
        y.retain_grad()
        y.register_hook(lambda g: g * 10)
        y.register_hook(lambda g: g + 1)  # hooks run in order, each on what the one before returned
        y.sum().backward()
        assert (y.grad.tolist(), x.grad.tolist()) == ([11.0], [22.0])

    def test_a_replacement_must_fit_the_tensor(self):
        """A float32 kernel would misinterpret a float64 array."""
        x = mr.tensor(np.ones((1, 2, 3, 3), np.float32), requires_grad=True)
        y = F.conv2d(x, mr.tensor(np.ones((2, 2, 1, 1), np.float32)))
        handle = y.register_hook(lambda g: g * np.float64(2))
        y.sum().backward()
        assert x.grad.dtype == np.float32
        np.testing.assert_array_equal(x.grad, 4)
        handle.remove()
        y = x * 2
        y.register_hook(lambda g: mr.from_numpy(g * 3))  # a Tensor is accepted too
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, 10)
        y = x * 2
        y.register_hook(lambda g: g[0])
        with pytest.raises(ShapeError, match=r"\(2, 3, 3\).*\(1, 2, 3, 3\)"):
            y.sum().backward()

    def test_one_hook_replaces_for_all_branches_below(self):
        x, z = leaf(1.0), leaf(1.0)
        y = x + z
        y.register_hook(lambda g: g * 0)
        y.sum().backward()
        assert (x.grad.tolist(), z.grad.tolist()) == ([0.0], [0.0])

    def test_removal(self):
        x, seen = leaf(1.0), []
        handle = x.register_hook(lambda g: seen.append("kept"))
        with x.register_hook(lambda g: seen.append("context")):
            (x * 2).sum().backward()
        gone = x.register_hook(lambda g: seen.append("removed"))
        gone.remove()
        gone.remove()  # a second call is not an error
        (x * 2).sum().backward()
        assert seen == ["kept", "context", "kept"]
        handle.remove()

    def test_a_hook_may_remove_itself(self):
        x, seen = leaf(1.0), []

        def once(g):
            seen.append(g.tolist())
            handle.remove()

        handle = x.register_hook(once)
        for _ in range(2):
            (x * 2).sum().backward()
        assert seen == [[2.0]]

    def test_hooks_need_a_tensor_that_requires_a_gradient(self):
        with pytest.raises(GraphError, match="require"):
            mr.tensor([1.0]).register_hook(print)
        with pytest.raises(GraphError, match="require"):
            mr.tensor([1.0]).retain_grad()


class TestSecondBackward:
    def test_it_is_explained(self):
        x = leaf(1.0)
        y = (x * x).sum()
        y.backward()
        with pytest.raises(GraphError, match=r"already walked.*retain_graph=True"):
            y.backward()
        assert x.grad.tolist() == [2.0]

    def test_through_a_shared_part(self):
        x = leaf(1.0)
        shared = x.exp()
        (shared * 2).sum().backward()
        with pytest.raises(GraphError, match="freed"):
            (shared * 3).sum().backward()

    def test_retain_graph(self):
        x = leaf(2.0)
        y = (x * x).sum()
        y.backward(retain_graph=True)
        y.backward()
        assert x.grad.tolist() == [8.0]
        with pytest.raises(GraphError):
            y.backward()

    def test_saved_arrays_are_freed(self):
        x = mr.tensor(np.ones(4), requires_grad=True)
        y = x * 2
        inner = F.exp(y)
        inner.sum().backward()
        assert not hasattr(inner.op, "y")
        assert not hasattr(inner.op, "inputs")

    def test_without_a_graph(self):
        with pytest.raises(GraphError, match="no_grad"):
            mr.tensor([1.0]).backward()

    def test_more_than_one_element_needs_a_gradient(self):
        with pytest.raises(GraphError, match=r"\(2,\)"):
            (leaf(1.0, 2.0) * 2).backward()
        with pytest.raises(ShapeError, match=r"\(3,\).*\(2,\)"):
            (leaf(1.0, 2.0) * 2).backward(np.ones(3))
        with pytest.raises(DtypeError, match=r"float32.*float64"):
            (leaf(1.0, 2.0) * 2).backward(mr.tensor([1.0, 1.0]))


class TestDtypes:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2), np.float32(2), np.int64(2), True])
    def test_scalars_take_the_tensors_dtype(self, dtype, scalar):
        x = mr.tensor(np.array([1.0, 2.0], dtype), requires_grad=True)
        for y in (x + scalar, scalar + x, x * scalar, scalar - x, x / scalar, scalar / x, x**scalar, scalar**x):
            assert isinstance(y, mr.Tensor)
            assert y.dtype == dtype
        np.testing.assert_array_equal((scalar - x).numpy(), float(scalar) - x.numpy())
        (scalar * x).sum().backward()
        assert x.grad.dtype == dtype

    def test_an_array_and_a_tensor(self):
        x, a = leaf(1.0, 2.0), np.array([10.0, 20.0])
        for y, expected in (
            (a + x, [11, 22]),
            (x + a, [11, 22]),
            (a - x, [9, 18]),
            (a * x, [10, 40]),
            (a / x, [10, 10]),
        ):
            assert isinstance(y, mr.Tensor)
            assert y.numpy().tolist() == expected
        assert isinstance(a @ x, mr.Tensor)
        assert (np.eye(2) @ x).numpy().tolist() == [1.0, 2.0]

    def test_mixed_dtypes_are_reported(self):
        x, y = mr.tensor([1.0]), mr.tensor(np.array([1.0]))
        for mix in (
            lambda: x + y,
            lambda: x @ y,
            lambda: x * y.numpy(),
            lambda: F.cat([x, y]),
            lambda: F.add_relu(x, y),
        ):
            with pytest.raises(DtypeError, match=r"float32 and float64") as error:
                mix()
            assert "astype" in str(error.value)
        with pytest.raises(DtypeError, match="int64"):
            x + mr.tensor([1])

    def test_astype_carries_gradients(self):
        x = mr.tensor(np.array([1.0, 2.0]), requires_grad=True)
        y = x.astype(np.float32)
        (y * y).sum().backward()
        assert (y.dtype, x.grad.dtype, x.grad.tolist()) == (np.float32, np.float64, [2.0, 4.0])

    def test_making_tensors(self):
        assert mr.tensor(1.5).dtype == np.float32
        assert mr.tensor([[1.0], [2.0]]).dtype == np.float32
        assert mr.tensor(np.float64(1)).dtype == np.float64
        assert mr.tensor([1, 2]).dtype == np.int64
        assert mr.tensor([1, 2], dtype=np.float32).dtype == np.float32
        source = np.zeros(3)
        mr.tensor(source).numpy()[0] = 1
        assert source[0] == 0
        mr.from_numpy(source).numpy()[0] = 1
        assert source[0] == 1
        for bad in (np.zeros(2, np.float16), np.zeros(2, complex), ["a"]):
            with pytest.raises(DtypeError):
                mr.tensor(bad)
        with pytest.raises(DtypeError, match="list"):
            mr.from_numpy([1.0])


class TestMethods:
    def test_methods_take_the_keywords_of_numpy_and_pytorch(self):
        x = np.arange(24.0).reshape(2, 3, 4)
        t = mr.tensor(x)
        np.testing.assert_array_equal(t.sum(axis=1, keepdims=True).numpy(), x.sum(1, keepdims=True))
        np.testing.assert_array_equal(t.mean(dim=(0, 2), keepdim=True).numpy(), x.mean((0, 2), keepdims=True))
        np.testing.assert_array_equal(t.max(-1).numpy(), x.max(-1))
        np.testing.assert_array_equal(t.T.numpy(), x.T)
        np.testing.assert_array_equal(t.view(6, -1).numpy(), x.reshape(6, 4))
        np.testing.assert_array_equal(t.clamp(3, 5).numpy(), x.clip(3, 5))
        np.testing.assert_array_equal(t[:, 1].numpy(), x[:, 1])
        np.testing.assert_array_equal((-t).numpy(), -x)
        assert (len(t), t.ndim, t.size, t.shape) == (2, 3, 24, (2, 3, 4))

    def test_item_and_truth(self):
        assert mr.tensor([2.0]).item() == 2.0
        assert mr.tensor(3).item() == 3
        assert bool(mr.tensor(0.0)) is False
        with pytest.raises(ShapeError, match=r"\(2,\)"):
            mr.tensor([1.0, 2.0]).item()
        with pytest.raises(TypeError):
            len(mr.tensor(1.0))

    def test_repr_names_the_operation(self):
        x = leaf(1.0)
        assert "requires_grad=True" in repr(x)
        assert "op=mul" in repr(x * 2)
        assert "op" not in repr(mr.tensor([1.0]))

    def test_a_tensor_can_be_a_key(self):
        x, y = leaf(1.0), leaf(1.0)
        assert {x: 1, y: 2}[x] == 1
