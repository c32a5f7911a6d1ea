"""Ownership of arrays: what a user keeps never changes, gradients are not shared, and memory returns to the pool."""

import gc
import mmap
import random
import threading

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.kernels.runtime import memory_pool


def training(keep, steps=4, seed=0):
    """Train a small residual network; ``keep(name, array)`` is called with every array that a user can access."""
    rng = np.random.default_rng(seed)
    mr.manual_seed(0)
    model = mr.models.create("resnet8", num_classes=10)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)
    for step in range(steps):
        x = mr.tensor(rng.standard_normal((8, 3, 32, 32)).astype(np.float32), requires_grad=True)
        seen = []
        stem = F.relu(model.conv1(x))
        stem.register_hook(seen.append)
        stem.retain_grad()
        logits = model(x) + F.mean(stem)
        logits.register_hook(seen.append)
        loss = F.cross_entropy(logits, rng.integers(0, 10, 8))
        model.zero_grad()
        loss.backward()
        optimizer.step()
        keep(f"{step}: stem", stem.numpy())
        keep(f"{step}: a view of the stem", stem.numpy()[:, 1::2])
        keep(f"{step}: logits", logits.numpy())
        keep(f"{step}: loss", loss.numpy())
        keep(f"{step}: gradient of the input", x.grad)
        keep(f"{step}: retained gradient", stem.grad)
        for i, grad in enumerate(seen):
            keep(f"{step}: seen by hook {i}", grad)
        for name, p in model.named_parameters():
            keep(f"{step}: gradient of {name}", p.grad)
    return model


def test_what_a_user_keeps_never_changes(backend):
    kept = {}

    def keep(name, array):
        assert isinstance(array, np.ndarray), name
        kept[name] = (array, array.copy())

    model = training(keep, steps=4 if backend == "numba" else 2)
    with mr.no_grad():
        model(mr.tensor(np.ones((8, 3, 32, 32), np.float32)))
    gc.collect()
    assert sum(array.nbytes >= memory_pool.SMALLEST for array, _ in kept.values()) > 8  # pooled arrays are among them
    for name, (array, copy) in kept.items():
        np.testing.assert_array_equal(array, copy, name)


def test_gradients_of_different_leaves_share_no_memory(backend):
    """An addition passes one array to both branches; so do slices, sums, concatenations and reshapes."""

    def leaves(*shapes):
        return [mr.tensor(np.ones(shape, np.float32), requires_grad=True) for shape in shapes]

    shape = (4, 16, 20, 20)
    graphs = [
        (lambda a, b: a + b, leaves(shape, shape)),
        (lambda a, b: a - b, leaves(shape, shape)),
        (F.add_relu, leaves(shape, shape)),
        (lambda a, b: F.cat([a, b], 1), leaves(shape, shape)),
        (lambda a, b: F.stack([a, b]), leaves((16, 20, 20), (16, 20, 20))),
        (lambda a, b: a.reshape(-1) + b.flatten(), leaves(shape, shape)),
        (lambda a, b: a.permute(0, 1, 3, 2) + b, leaves(shape, shape)),
        (lambda a, b: a.sum() + b.sum(), leaves(shape, shape)),
        (lambda a, b: F.pad(a, (1, 1)) + F.pad(b, (2, 0)), leaves(shape, shape)),
        (lambda a, b: a.astype(np.float64) + b.astype(np.float64), leaves(shape, shape)),
    ]
    for f, (a, b) in graphs:
        y = f(a, b)
        dy = np.ones(y.shape, y.dtype)
        y.backward(dy)
        arrays = [a.grad, b.grad, dy, y.numpy()]
        for i, first in enumerate(arrays):
            for second in arrays[i + 1 :]:
                assert not np.may_share_memory(first, second)
        a.grad *= 0
        assert (b.grad != 0).all()
        assert (dy == 1).all()


def test_a_gradient_can_be_changed_in_place():
    """For gradient clipping, say: x.grad belongs to the user, whole and writeable."""
    x = mr.tensor(np.ones((3, 4)), requires_grad=True)
    x.sum().backward()
    x.grad /= 2
    x.grad[0, 0] = 7
    assert x.grad.sum() == 7 + 11 / 2
    x.mean().backward()
    np.testing.assert_allclose(x.grad[0, 0], 7 + 1 / 12)


def test_fan_out_leaves_the_operands_alone():
    """Gradients are accumulated in place only in arrays that the tape made, not in dy or in what a hook has seen."""
    x, seen = mr.tensor(np.ones((200, 200), np.float32), requires_grad=True), []
    a, b = x + 0.0, x + 0.0
    for t in (a, b):
        t.register_hook(seen.append)
    y = a + b
    dy = np.full(y.shape, 3, np.float32)
    y.backward(dy)
    assert (x.grad == 6).all()
    assert (dy == 3).all()
    assert all((g == 3).all() for g in seen)


@pytest.fixture
def pool(monkeypatch):
    """A new pool for the test."""
    fresh = memory_pool.Pool()
    monkeypatch.setattr(memory_pool, "pool", fresh)
    return fresh


def resident_bytes():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        pytest.skip("this system does not report the memory of a process")


class TestPool:
    def test_memory_is_reused_when_the_last_view_is_gone(self, pool):
        a = memory_pool.empty((100, 1000), np.float32)
        place = a.ctypes.data
        view = a[3:, ::2].T
        del a
        view[...] = 5
        other = memory_pool.empty((100, 1000), np.float32)
        assert not np.may_share_memory(view, other)
        other[...] = 0
        assert (view == 5).all()
        del view
        again = memory_pool.empty((100, 1000), np.float32)
        assert again.ctypes.data == place

    @pytest.mark.parametrize(
        "hold", [np.transpose, lambda a: a.reshape(-1)[5:], memoryview, lambda a: a.view(np.uint8), np.asarray]
    )
    def test_any_reference_holds_the_memory(self, pool, hold):
        a = memory_pool.empty((64, 1024), np.float32)
        place = a.ctypes.data
        held = hold(a)
        del a
        gc.collect()
        other = memory_pool.empty((64, 1024), np.float32)
        assert other.ctypes.data != place
        del held, other
        gc.collect()
        assert pool.used_bytes == 0

    def test_arrays_are_aligned_and_contiguous(self, pool):
        for shape in ((1 << 15,), (77, 991), (3, 5, 70, 33)):
            a = memory_pool.empty(shape, np.float64)
            assert a.ctypes.data % 64 == 0
            assert a.flags.carray
            assert (a.shape, a.dtype) == (shape, np.float64)
            a[...] = 1

    def test_a_system_without_huge_pages(self, pool, monkeypatch):
        class Refusing(mmap.mmap):
            def madvise(self, *_):
                raise OSError(22, "Invalid argument")

        monkeypatch.setattr(mmap, "mmap", Refusing)
        a = memory_pool.zeros((300, 300), np.float32)
        assert pool.used_bytes >= a.nbytes
        assert not a.any()

    def test_two_arrays_never_overlap(self, pool):
        rng = np.random.default_rng(0)
        alive = []
        for i in range(300):
            if alive and rng.random() < 0.5:
                array, value = alive.pop(rng.integers(len(alive)))
                assert (array == value).all()
                del array
            array = memory_pool.empty((int(rng.integers(16_000, 40_000)),), np.float32)
            array[...] = i
            alive.append((array, i))
        for array, value in alive:
            assert (array == value).all()

    def test_adjacent_free_pieces_are_merged(self, pool):
        pieces = [memory_pool.empty((1 << 20,), np.uint8) for _ in range(8)]
        first = min(piece.ctypes.data for piece in pieces)
        random.Random(0).shuffle(pieces)
        while pieces:
            pieces.pop()
        whole = memory_pool.empty((8 << 20,), np.uint8)
        assert whole.ctypes.data == first
        assert pool.held_bytes == memory_pool.SEGMENT

    def test_large_and_small_pieces_share_memory(self, pool):
        """A forward pass takes ever smaller arrays, and a backward pass ever larger ones while the former are freed."""
        for _ in range(3):
            sizes = [8 << 20] * 4 + [4 << 20] * 4 + [2 << 20] * 4
            forward = [memory_pool.empty((size,), np.uint8) for size in sizes]
            for size in reversed(sizes):
                gradient = memory_pool.empty((size,), np.uint8)
                forward.pop()
            del gradient
        assert pool.most_used <= sum(sizes) + (2 << 20)
        assert pool.held_bytes <= sum(sizes) + 2 * memory_pool.SEGMENT

    def test_held_memory_is_bounded(self, pool):
        for n in (1, 3, 5, 2, 7, 4, 6, 1, 2, 3):
            memory_pool.empty((n * memory_pool.SEGMENT,), np.uint8)
            assert pool.used_bytes == 0
            assert pool.held_bytes <= pool.most_used * 3 // 2
        assert pool.most_used == 7 * memory_pool.SEGMENT
        pool.clear()
        assert pool.held_bytes == 0

    def test_a_segment_in_use_is_kept(self, pool):
        kept = memory_pool.empty((1 << 20,), np.uint8)
        kept[...] = 3
        memory_pool.empty((2 * memory_pool.SEGMENT,), np.uint8)
        pool.clear()
        assert pool.held_bytes == memory_pool.SEGMENT
        assert (kept == 3).all()

    def test_memory_that_is_not_written_to_is_not_resident(self, pool):
        resident = resident_bytes()
        memory_pool.empty((memory_pool.SEGMENT,), np.uint8)[: 1 << 20] = 1
        assert resident_bytes() - resident < memory_pool.SEGMENT // 2

    def test_running_out_of_memory_is_reported(self, pool, monkeypatch):
        def refused(size):
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(memory_pool, "_map", refused)
        with pytest.raises(MemoryError, match=r"no room for 1,048,576 more bytes \(Cannot allocate memory\)"):
            memory_pool.empty((1 << 20,), np.uint8)
        assert pool.used_bytes == 0

    def test_without_room_for_a_segment_only_the_array_is_allocated(self, pool, monkeypatch):
        tight = memory_pool._map

        def small(size):
            if size >= memory_pool.SEGMENT:
                raise OSError(12, "Cannot allocate memory")
            return tight(size)

        monkeypatch.setattr(memory_pool, "_map", small)
        memory_pool.empty((1 << 20,), np.uint8)[...] = 1
        assert pool.held_bytes == 1 << 20

    def test_a_finalizer_during_an_allocation_gets_memory_elsewhere(self, pool, monkeypatch):
        """Garbage collection may run any __del__ at any line."""
        found, insort = [], memory_pool.insort

        def interrupted(pieces, piece):
            found.append(memory_pool.empty((1 << 17,), np.uint8))
            insort(pieces, piece)

        monkeypatch.setattr(memory_pool, "insort", interrupted)
        array = memory_pool.empty((1 << 17,), np.uint8)
        assert found
        for other in found:
            other[...] = 1
            assert not np.may_share_memory(array, other)
        del array, found[:]
        assert pool.used_bytes == 0

    def test_an_interrupted_allocation_loses_nothing_that_is_held(self, pool, monkeypatch):
        held = memory_pool.empty((1 << 17,), np.uint8)
        held[...] = 5

        def interrupted(pieces, piece):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(memory_pool, "insort", interrupted)
            with pytest.raises(KeyboardInterrupt):
                memory_pool.empty((1 << 17,), np.uint8)
        arrays = [memory_pool.empty((1 << 17,), np.uint8) for _ in range(20)]
        for array in arrays:
            array[...] = 7
        assert (held == 5).all()
        del held
        assert pool.used_bytes == 20 << 17
        del arrays, array
        assert pool.used_bytes == 0

    def test_many_threads_at_once(self, pool):
        wrong = []

        def work(value):
            rng = random.Random(value)
            for _ in range(200):
                array = memory_pool.empty((rng.randrange(1 << 16, 1 << 18),), np.uint8)
                array[...] = value
                other = memory_pool.empty((1 << 17,), np.uint8)
                other[...] = value + 100
                if not ((array == value).all() and (other == value + 100).all()):
                    wrong.append(value)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert pool.used_bytes == 0

    def test_zeros_are_zero_in_reused_memory(self, pool):
        memory_pool.empty((300, 300), np.float32)[...] = 7
        assert not memory_pool.zeros((300, 300), np.float32).any()

    def test_a_training_step_returns_its_memory(self, pool):
        mr.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)
        )
        x = np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype(np.float32)

        def step():
            loss = (model(mr.tensor(x)) ** 2).mean()
            model.zero_grad()
            loss.backward()

        for _ in range(2):
            step()
        gc.collect()
        used, most = pool.used_bytes, pool.most_used
        for _ in range(3):
            step()
        assert pool.used_bytes == used  # freed by reference counts: no garbage collection was needed
        assert pool.most_used <= most * 1.01
