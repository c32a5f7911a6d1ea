"""CIFAR-10 and CIFAR-100 from small files in the official layout."""

import io
import tarfile

import numpy as np
import pytest

from minires import data
from minires.data.cifar import CIFAR10, CIFAR100
from minires.errors import DataError

COUNT = 7  # records a file


def make_records(layout, seed):
    """(bytes of a file, its images (N, 32, 32, 3), its labels)."""
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, limit, COUNT, dtype=np.uint8) for limit in layout.label_counts]
    images = rng.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    content = b""
    for i in range(COUNT):
        content += bytes(int(byte[i]) for byte in labels)
        content += b"".join(images[i, :, :, channel].tobytes() for channel in range(3))
    return content, images, labels[-1]


def make_files(layout):
    return {name: make_records(layout, seed)[0] for seed, name in enumerate((*layout.train, *layout.test))}


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


def write_archive(path, layout, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{layout.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=lambda layout: layout.name)
def layout(request):
    return request.param


def check(layout, place):
    train, test = data.load(layout.name, data_dir=place)
    expected = [make_records(layout, seed) for seed in range(len(layout.train) + 1)]
    np.testing.assert_array_equal(train.images, np.concatenate([images for _, images, _ in expected[:-1]]))
    np.testing.assert_array_equal(train.labels, np.concatenate([labels for _, _, labels in expected[:-1]]))
    np.testing.assert_array_equal(test.images, expected[-1][1])
    np.testing.assert_array_equal(test.labels, expected[-1][2])
    np.testing.assert_array_equal(test.mean, train.mean)
    assert (train.name, train.num_classes) == (layout.name, layout.label_counts[-1])
    assert train.images.flags.carray


def test_from_a_folder_around_the_folder(layout, tmp_path):
    write_folder(tmp_path / layout.folder, make_files(layout))
    check(layout, tmp_path)


def test_from_the_folder_itself(layout, tmp_path):
    check(layout, str(write_folder(tmp_path / layout.folder, make_files(layout))))


def test_from_a_folder_of_another_name(layout, tmp_path):
    check(layout, write_folder(tmp_path / "mine", make_files(layout)))


def test_from_the_archive_in_a_folder(layout, tmp_path):
    write_archive(tmp_path / layout.archive, layout, make_files(layout))
    check(layout, tmp_path)


def test_from_the_archive(layout, tmp_path):
    check(layout, write_archive(tmp_path / "any name.tgz", layout, make_files(layout)))


def test_the_home_folder_may_be_a_tilde(layout, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_folder(tmp_path / "data" / layout.folder, make_files(layout))
    check(layout, "~/data")


def test_class_names():
    assert CIFAR10.classes[0] == "airplane"
    assert CIFAR10.classes[9] == "truck"
    assert len(CIFAR100.classes) == 100
    assert (CIFAR100.classes[0], CIFAR100.classes[51], CIFAR100.classes[99]) == ("apple", "mushroom", "worm")
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)  # the official numbers are alphabetical


class TestDamage:
    """Every message names the file, what was seen, and what to do."""

    def refuse(self, layout, place, *words):
        with pytest.raises(DataError) as caught:
            data.load(layout.name, data_dir=place)
        for word in words:
            assert word in str(caught.value)

    def test_no_such_folder(self, layout, tmp_path):
        self.refuse(layout, tmp_path / "nowhere", "nowhere does not exist", layout.archive)

    def test_a_folder_of_other_things(self, layout, tmp_path):
        self.refuse(layout, tmp_path, "but nothing", layout.folder)
        (tmp_path / "holiday.jpg").write_bytes(b"x")
        self.refuse(layout, tmp_path, "holiday.jpg", layout.folder)

    def test_the_pickled_version(self, layout, tmp_path):
        name = f"cifar-{layout.name[5:]}-python.tar.gz"
        (tmp_path / name).write_bytes(b"x")
        self.refuse(layout, tmp_path, name, "pickled", layout.archive)

    def test_the_other_cifar(self, layout, tmp_path):
        other = CIFAR100 if layout is CIFAR10 else CIFAR10
        self.refuse(layout, write_folder(tmp_path / "a" / other.folder, make_files(other)), "holds no " + layout.name)
        archive = write_archive(tmp_path / other.archive, other, make_files(other))
        self.refuse(layout, archive, "lacks " + min(*layout.train, *layout.test), other.test[0])

    def test_a_missing_file(self, layout, tmp_path):
        files = make_files(layout)
        del files[layout.test[0]]
        self.refuse(layout, write_folder(tmp_path / layout.folder, files), "lacks " + layout.test[0])
        self.refuse(layout, write_archive(tmp_path / layout.archive, layout, files), "lacks " + layout.test[0])

    def test_a_file_cut_short(self, layout, tmp_path):
        files = make_files(layout)
        files[layout.train[-1]] = files[layout.train[-1]][:-5]
        size = COUNT * layout.record - 5
        words = layout.train[-1], f"{size:,} bytes", f"record {COUNT - 1}, at byte {(COUNT - 1) * layout.record:,}"
        self.refuse(layout, write_folder(tmp_path / layout.folder, files), *words)
        self.refuse(layout, write_archive(tmp_path / layout.archive, layout, files), *words)

    def test_an_empty_file(self, layout, tmp_path):
        files = make_files(layout) | {layout.test[0]: b""}
        self.refuse(layout, write_folder(tmp_path / layout.folder, files), layout.test[0], "has 0 bytes")

    def test_a_label_out_of_range(self, layout, tmp_path):
        for byte, limit in enumerate(layout.label_counts):
            files = make_files(layout)
            content = bytearray(files[layout.train[0]])
            content[3 * layout.record + byte] = limit
            files[layout.train[0]] = bytes(content)
            folder = write_folder(tmp_path / str(byte) / layout.folder, files)
            self.refuse(layout, folder, layout.train[0], f"byte {3 * layout.record + byte:,} (record 3) is {limit}")

    def test_an_archive_cut_short(self, layout, tmp_path):
        path = write_archive(tmp_path / layout.archive, layout, make_files(layout))
        path.write_bytes(path.read_bytes()[:-20_000])
        self.refuse(layout, path, layout.archive, "cut short", f"{path.stat().st_size:,} bytes")

    def test_a_damaged_archive(self, layout, tmp_path):
        path = write_archive(tmp_path / layout.archive, layout, make_files(layout))
        content = bytearray(path.read_bytes())
        content[5000:5400] = bytes(400)
        path.write_bytes(content)
        with pytest.raises(DataError, match=layout.archive):
            data.load(layout.name, data_dir=path)

    def test_something_else(self, layout, tmp_path):
        (tmp_path / layout.archive).write_text("<html>404</html>")
        self.refuse(layout, tmp_path, layout.archive, "cannot be read as an archive", "16 bytes")
