"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from the official binary files, unpacked or in their archive.

A record is its label (CIFAR-100: the coarse one, then the fine one), a byte each, and 3,072 pixel bytes: the red, green
and blue planes, 32 × 32 each, row by row. The version "for Python" is pickled; minires never loads a pickle.
"""

import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import DataError
from .dataset import Dataset

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
PIXELS = 3 * 32 * 32
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class Layout:
    """Where a version of CIFAR keeps what."""

    name: str
    folder: str
    archive: str
    train: tuple
    test: tuple
    label_counts: tuple  # of each label byte; the last byte is the label that is learnt
    classes: tuple

    @property
    def record(self):
        """Bytes of a record."""
        return len(self.label_counts) + PIXELS


CIFAR10 = Layout(
    name="cifar10",
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    label_counts=(10,),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
CIFAR100 = Layout(
    name="cifar100",
    folder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    train=("train.bin",),
    test=("test.bin",),
    label_counts=(20, 100),
    classes=tuple(_FINE.split()),
)


def cifar10(data_dir):
    """CIFAR-10: (training set, test set), in the order of the files.

    ``data_dir`` is ``cifar-10-batches-bin``, a folder that holds it or ``cifar-10-binary.tar.gz``, or that archive.
    Raises DataError, which names the file, when something is missing, cut short or out of range.
    """
    return _load(CIFAR10, data_dir)


def cifar100(data_dir):
    """CIFAR-100 with its 100 fine labels: (training set, test set). As cifar10; the folder is ``cifar-100-binary``."""
    return _load(CIFAR100, data_dir)


def _load(layout, data_dir):
    if data_dir is None:
        raise DataError(f"{layout.name} is read from disk: give data_dir. {_way_out(layout)}")
    files = _read_files(layout, Path(data_dir).expanduser())
    images, labels = _join([files[name] for name in layout.train])
    train = Dataset(images, labels, layout.classes, layout.name)
    return train, Dataset(
        *_join([files[name] for name in layout.test]), layout.classes, layout.name, train.mean, train.std
    )


def _way_out(layout):
    return f"It is a folder that holds {layout.folder}/ or {layout.archive} (the binary version at {HOME})"


def _join(parts):
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read_files(layout, place):
    """File name -> (images, labels), from wherever ``place`` leads."""
    if place.is_file():
        return _read_archive(layout, place)
    if not place.is_dir():
        raise DataError(f"{place} does not exist. {_way_out(layout)}")
    for folder in (place / layout.folder, place):
        if (folder / layout.train[0]).is_file() or (folder.name == layout.folder and folder.is_dir()):
            return _read_folder(layout, folder)
    if (place / layout.archive).is_file():
        return _read_archive(layout, place / layout.archive)
    found = sorted(path.name for path in place.iterdir())
    pickled = [
        name
        for name in found
        if name in (f"cifar-{layout.name[5:]}-python.tar.gz", "cifar-10-batches-py", "cifar-100-python")
    ]
    if pickled:
        raise DataError(f"{place / pickled[0]} is the pickled version, which minires does not load. {_way_out(layout)}")
    holds = ", ".join(found[:5]) + (" …" if len(found) > 5 else "") if found else "nothing"
    raise DataError(f"{place} holds no {layout.name}, but {holds}. {_way_out(layout)}")


def _read_folder(layout, folder):
    missing = [name for name in (*layout.train, *layout.test) if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}: unpack {layout.archive} again ({HOME})")
    return {
        name: _parse(layout, np.fromfile(folder / name, np.uint8), folder / name)
        for name in (*layout.train, *layout.test)
    }


def _read_archive(layout, path):
    """The files out of the archive, which is read once, front to back; nothing is unpacked to disk."""
    wanted, files, seen = {*layout.train, *layout.test}, {}, []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                seen.append(name)
                if member.isfile() and name in wanted:
                    content = archive.extractfile(member).read()
                    files[name] = _parse(layout, np.frombuffer(content, np.uint8), f"{path}: {member.name}")
            while archive.fileobj.read(1 << 20):
                pass  # the checksum of all of it stands at the very end
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as an archive: {error}. "
            f"It is damaged, cut short or something else; get {layout.archive} again from {HOME}"
        ) from error
    missing = sorted(wanted - files.keys())
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(seen[:8])}. {_way_out(layout)}")
    return files


def _parse(layout, content, where):
    """The bytes of a file → (images (N, 32, 32, 3) uint8, labels (N,) int64)."""
    count, rest = divmod(len(content), layout.record)
    if rest or not count:
        raise DataError(
            f"{where} has {len(content):,} bytes, which is no whole number of records of {layout.record:,} bytes "
            f"(record {count}, at byte {count * layout.record:,}, is not all there): it is cut short, or no "
            f"{layout.name} file; get it again from {HOME}"
        )
    records = content.reshape(count, layout.record)
    for byte, limit in enumerate(layout.label_counts):
        wrong = np.flatnonzero(records[:, byte] >= limit)
        if wrong.size:
            raise DataError(
                f"{where}: the label at byte {wrong[0] * layout.record + byte:,} (record {wrong[0]}) is "
                f"{records[wrong[0], byte]}, but {layout.name} has {limit}: the file is damaged or no {layout.name}"
            )
    labels = records[:, len(layout.label_counts) - 1].astype(np.int64)
    planes = records[:, len(layout.label_counts) :].reshape(count, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
