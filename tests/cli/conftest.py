import numpy as np
import pytest

from minires.cli import main
from minires.data import shapes
from minires.kernels.runtime import jit, progress

collect_ignore = ["conftest.py"]  # else pytest takes it for a module of doctests, whose name is not unique


@pytest.fixture(scope="session")
def cifar(tmp_path_factory):
    """A folder that looks like CIFAR-10 and holds 40 training and 24 test images of the built-in set."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-bin"
    folder.mkdir()
    train, test = shapes(0, train=40, test=24)
    parts = [(f"data_batch_{i + 1}.bin", train, slice(8 * i, 8 * i + 8)) for i in range(5)]
    for name, dataset, part in [*parts, ("test_batch.bin", test, slice(None))]:
        planes = dataset.images[part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        records = np.concatenate([dataset.labels[part, None].astype(np.uint8), planes], axis=1)
        (folder / name).write_bytes(records.tobytes())
    return folder


@pytest.fixture
def minires(capsys, tmp_path, monkeypatch):
    """Run a command line in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(jit.compiles, "announce", False)  # what is said of kernels depends on what others have compiled
    monkeypatch.setattr(progress, "_report", lambda done, total: None)

    def call(*args):
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


@pytest.fixture
def small_run(cifar):
    """Options that make `minires train` a matter of a second."""
    options = ["train", "--dataset", "cifar10", "--model", "resnet8", "--epochs", "2", "--batch-size", "16"]
    return [*options, "--data-dir", str(cifar), "--threads", "1"]
