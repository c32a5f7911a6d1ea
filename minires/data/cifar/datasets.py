"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official files, binary or "for Python", unpacked or as the archive.

This module has the names, sizes and checksums of the files. ``files`` finds and reads them, ``downloads`` fetches
them.
"""

from pathlib import Path

from ..dataset import Dataset
from . import files
from .layout import Layout, Version

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
CIFAR10 = Layout(
    name="cifar10",
    versions=(
        Version(
            kind="binary",
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            megabytes=170,
            train=tuple(f"{name}.bin" for name in _BATCHES),
            test=("test_batch.bin",),
        ),
        Version(
            kind="python",
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            megabytes=170,
            train=_BATCHES,
            test=("test_batch",),
            checksums={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
            },
        ),
    ),
    label_counts=(10,),
    label_keys=("labels",),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    counts=dict.fromkeys((*_BATCHES, "test_batch"), 10_000),
)
CIFAR100 = Layout(
    name="cifar100",
    versions=(
        Version(
            kind="binary",
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            megabytes=169,
            train=("train.bin",),
            test=("test.bin",),
        ),
        Version(
            kind="python",
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            megabytes=169,
            train=("train",),
            test=("test",),
            checksums={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        ),
    ),
    label_counts=(20, 100),
    label_keys=("coarse_labels", "fine_labels"),
    classes=tuple(_FINE.split()),
    counts={"train": 50_000, "test": 10_000},
)
LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}


def cifar10(data_dir: Path | str | None = None) -> tuple[Dataset, Dataset]:
    """CIFAR-10: (training set, test set), in the order of the files.

    data_dir: ``cifar-10-batches-bin`` or ``cifar-10-batches-py``, a folder that contains one of them or its archive, or the
    archive itself; by default the folder that ``minires data download cifar10`` uses.
    Raises DataError, which names the file, when something is missing, truncated, out of range or too large.
    """
    return _load(CIFAR10, data_dir)


def cifar100(data_dir: Path | str | None = None) -> tuple[Dataset, Dataset]:
    """CIFAR-100 with its 100 fine labels: (training set, test set). ``data_dir`` and errors as of ``cifar10``."""
    return _load(CIFAR100, data_dir)


def _load(layout: Layout, data_dir: Path | str | None) -> tuple[Dataset, Dataset]:
    version, parts = files.read(layout, data_dir)
    train = Dataset(*files.join(parts, version.train), layout.classes, layout.name)
    return train, Dataset(*files.join(parts, version.test), layout.classes, layout.name, train.mean, train.std)
