import pytest

import minires as mr
from minires.data import Augmentation, Loader, shapes
from minires.optim import SGD, OneCycleLR
from minires.training import Trainer

TRAIN, TEST, BATCH = 48, 20, 16

collect_ignore = ["conftest.py"]  # else pytest takes it for a module of doctests, whose name is not unique


@pytest.fixture(scope="session")
def tiny():
    """A handful of the built-in images: (training set, test set)."""
    return shapes(0, train=TRAIN, test=TEST)


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
