import pytest
from runs import TIMES

import minires as mr
from minires.data import Augmentation, Loader, shapes
from minires.files import atomic_write
from minires.optim import SGD, OneCycleLR
from minires.training import Trainer, build, run

TRAIN, TEST, BATCH = 48, 20, 16

collect_ignore = ["conftest.py"]  # else pytest takes it for a module of doctests, whose name is not unique


@pytest.fixture(scope="session")
def tiny():
    """A handful of the built-in images: (training set, test set)."""
    return shapes(0, train=TRAIN, test=TEST)


@pytest.fixture
def small_runs(monkeypatch, tiny):
    """Runs on a handful of images, with curves that are quickly drawn."""

    def draw(rows, path, title):
        with atomic_write(path) as file:
            file.write(repr((title, [{**row, **TIMES} for row in rows])).encode())

    monkeypatch.setattr(build.data, "load", lambda name, data_dir, seed: tiny)
    monkeypatch.setattr(run, "draw_curves", draw)


@pytest.fixture
def make_trainer(tiny):
    """A function that makes the same small Trainer every time."""

    def make(epochs=2, lr=0.05, **more):
        mr.manual_seed(0)
        model = mr.models.create("resnet8", num_classes=10)
        loader = Loader(tiny[0], BATCH, augment=Augmentation(), seed=0)
        optimizer = SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4, nesterov=True)
        schedule = OneCycleLR(optimizer, lr, epochs * len(loader))
        test_loader = Loader(tiny[1], BATCH, shuffle=False)
        return Trainer(model, loader, test_loader, optimizer, schedule, epochs=epochs, **more)

    return make
