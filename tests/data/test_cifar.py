"""CIFAR-10 and CIFAR-100 from small files in the official layouts, binary and Python."""

import errno
import tarfile

import numpy as np
import pytest
from cifar_files import COUNT, make_content, make_files, plain_files, write_archive, write_file, write_folder

from minires import data
from minires.data.cifar import files as files_module
from minires.data.cifar.datasets import CIFAR10, CIFAR100
from minires.errors import DataError

CASES = [(layout, version) for layout in (CIFAR10, CIFAR100) for version in layout.versions]


@pytest.fixture(params=CASES, ids=[f"{layout.name}-{version.kind}" for layout, version in CASES])
def case(request):
    """(layout, version)"""
    return request.param


@pytest.fixture(autouse=True)
def nothing_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path / "cache"))


def check(case, place):
    layout, version = case
    train, test = data.load(layout.name, data_dir=place)
    expected = [make_content(layout, seed) for seed in range(len(version.files))]
    np.testing.assert_array_equal(train.images, np.concatenate([images for images, _ in expected[:-1]]))
    np.testing.assert_array_equal(train.labels, np.concatenate([labels[-1] for _, labels in expected[:-1]]))
    np.testing.assert_array_equal(test.images, expected[-1][0])
    np.testing.assert_array_equal(test.labels, expected[-1][1][-1])
    np.testing.assert_array_equal(test.mean, train.mean)
    assert (train.name, train.num_classes) == (layout.name, layout.label_counts[-1])
    assert train.images.flags.carray


def test_from_a_folder_around_the_folder(case, tmp_path):
    write_folder(tmp_path / case[1].folder, make_files(*case))
    check(case, tmp_path)


def test_from_the_folder_itself(case, tmp_path):
    check(case, str(write_folder(tmp_path / case[1].folder, make_files(*case))))


def test_from_a_folder_of_another_name(case, tmp_path):
    check(case, write_folder(tmp_path / "mine", make_files(*case)))


def test_from_the_archive_in_a_folder(case, tmp_path):
    write_archive(tmp_path / case[1].archive, case[1], make_files(*case))
    check(case, tmp_path)


def test_from_the_archive(case, tmp_path):
    check(case, write_archive(tmp_path / "any name.tgz", case[1], make_files(*case)))


def test_from_where_downloads_go(case, tmp_path):
    folder = tmp_path / "cache/data"
    assert files_module.default_folder() == folder
    folder.mkdir(parents=True)
    write_archive(folder / case[1].archive, case[1], make_files(*case))
    check(case, None)


def test_the_default_folder_is_among_the_users_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIRES_CACHE_DIR")
    monkeypatch.setattr(files_module.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    assert files_module.default_folder() == tmp_path / "minires/data"


def test_of_both_versions_the_binary_one_is_read(tmp_path):
    binary, python = CIFAR10.versions
    write_folder(tmp_path / binary.folder, make_files(CIFAR10, binary))
    write_folder(tmp_path / python.folder, dict.fromkeys(python.files, b"not looked at"))
    check((CIFAR10, binary), tmp_path)


def test_the_home_folder_may_be_a_tilde(case, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_folder(tmp_path / "data" / case[1].folder, make_files(*case))
    check(case, "~/data")


def test_class_names():
    assert CIFAR10.classes[0] == "airplane"
    assert CIFAR10.classes[9] == "truck"
    assert len(CIFAR100.classes) == 100
    assert (CIFAR100.classes[0], CIFAR100.classes[51], CIFAR100.classes[99]) == ("apple", "mushroom", "worm")
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)  # the official numbers are alphabetical


def refuse(layout, place, *words):
    """Every message names the file, what was seen, and what to do, in a sentence or two."""
    with pytest.raises(DataError) as caught:
        data.load(layout.name, data_dir=place)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


class TestDamage:
    def test_no_such_folder(self, case, tmp_path):
        refuse(case[0], tmp_path / "nowhere", "nowhere does not exist", case[1].archive)

    def test_nothing_downloaded(self, case, tmp_path):
        refuse(case[0], None, f"not in {tmp_path / 'cache/data'}", f"minires data download {case[0].name}", "data_dir")

    def test_a_folder_of_other_things(self, case, tmp_path):
        refuse(case[0], tmp_path, "but nothing", case[1].folder)
        (tmp_path / "holiday.jpg").write_bytes(b"x")
        refuse(case[0], tmp_path, "holiday.jpg", case[1].folder)

    def test_a_folder_that_cannot_be_looked_into(self, case, tmp_path, monkeypatch):
        def locked(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(files_module.Path, "is_file", locked)
        refuse(case[0], tmp_path, f"{tmp_path} cannot be looked into: Permission denied")

    @pytest.mark.parametrize("kind", [0, 1], ids=["binary", "python"])
    @pytest.mark.parametrize(("mine", "other"), [(CIFAR10, CIFAR100), (CIFAR100, CIFAR10)])
    def test_the_other_cifar(self, mine, other, kind, tmp_path):
        version = other.versions[kind]
        refuse(
            mine,
            write_folder(tmp_path / "a" / version.folder, make_files(other, version)),
            "holds no " + mine.name,
        )
        archive = write_archive(tmp_path / version.archive, version, make_files(other, version))
        refuse(mine, archive, "lacks " + min(mine.versions[0].files), version.test[0])

    def test_a_missing_file(self, case, tmp_path, page):
        layout, version = case
        files = make_files(*case)
        del files[version.test[0]]
        page(refuse(layout, write_folder(tmp_path / version.folder, files), "lacks " + version.test[0]))
        page(refuse(layout, write_archive(tmp_path / version.archive, version, files), "lacks " + version.test[0]))

    def test_a_file_twice(self, case, tmp_path):
        layout, version = case
        path = tmp_path / version.archive
        folder = write_folder(tmp_path / "x", make_files(*case))
        with tarfile.open(path, "w:gz") as archive:
            for name in (version.files[0], *version.files):
                archive.add(folder / name, f"{version.folder}/{name}")
        refuse(layout, path, f"holds two files {version.files[0]}")

    def test_a_file_cut_short(self, case, tmp_path, page):
        layout, version = case
        files = make_files(*case)
        files[version.train[-1]] = files[version.train[-1]][:-5]
        size = len(files[version.train[-1]])
        words = [version.train[-1], f"{size:,} bytes", "cut short"]
        if version.kind == "binary":
            words.append(f"record {COUNT - 1}, at byte {(COUNT - 1) * layout.record:,}")
        page(refuse(layout, write_folder(tmp_path / version.folder, files), *words))
        page(refuse(layout, write_archive(tmp_path / version.archive, version, files), *words))

    def test_an_empty_file(self, case, tmp_path):
        files = make_files(*case) | {case[1].test[0]: b""}
        refuse(case[0], write_folder(tmp_path / case[1].folder, files), case[1].test[0], "0 bytes")

    def test_a_label_out_of_range(self, case, tmp_path, page):
        layout, version = case
        for which, limit in enumerate(layout.label_counts):
            images, labels = make_content(layout, 0)
            labels[which][3] = limit
            files = make_files(*case) | {version.train[0]: write_file(layout, version, images, labels)}
            folder = write_folder(tmp_path / str(which) / version.folder, files)
            if version.kind == "binary":
                said = f"byte {3 * layout.record + which:,} (record 3) is {limit}"
            else:
                said = f"label 3 of '{layout.label_keys[which]}' is {limit}"
            page(refuse(layout, folder, version.train[0], said))

    def test_something_else(self, case, tmp_path):
        (tmp_path / case[1].archive).write_text("<html>404</html>")
        refuse(case[0], tmp_path, case[1].archive, "cannot be read as a .tar.gz archive", "16 bytes")

    def test_a_file_that_cannot_be_read(self, case, tmp_path, monkeypatch):
        def broken(path, *args):
            raise OSError(errno.EIO, "Input/output error", str(path))

        folder = write_folder(tmp_path / case[1].folder, make_files(*case))
        archive = write_archive(tmp_path / case[1].archive, case[1], make_files(*case))
        monkeypatch.setattr(files_module.np, "fromfile", broken)
        monkeypatch.setattr(files_module, "open", broken, raising=False)
        refuse(case[0], folder, f"{case[1].train[0]} cannot be read: Input/output error")
        refuse(case[0], archive, f"{archive} cannot be read: Input/output error")


class TestPythonVersion:
    """What may be wrong inside a pickle that can be read."""

    PICKLE = CIFAR100.versions[1]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda batch: [1, 2], "holds a list, not the dict"),
            (lambda batch: batch | {b"data": None}, "'data' is a NoneType"),
            (lambda batch: batch | {b"data": np.zeros((7, 3071), np.uint8)}, "'data' is uint8 (7, 3071)"),
            (lambda batch: batch | {b"data": np.zeros((7, 3072), np.int8)}, "'data' is int8 (7, 3072)"),
            (lambda batch: batch | {b"data": np.zeros((0, 3072), np.uint8)}, "holds no image"),
            (lambda batch: {b"data": batch[b"data"]}, "'coarse_labels' should be 7 labels and is a NoneType"),
            (lambda batch: batch | {"fine_labels": [1]}, "'fine_labels' should be 7 labels and is 1 of them"),
            (lambda batch: batch | {"fine_labels": [0] * 6 + [-1]}, "label 6 of 'fine_labels' is -1"),
            (lambda batch: batch | {"fine_labels": [0] * 6 + [100]}, "is 100, but cifar100 has the labels 0 to 99"),
            (lambda batch: batch | {"fine_labels": [0] * 6 + ["7"]}, "label 6 of 'fine_labels' is of type str"),
            (lambda batch: batch | {"fine_labels": [0] * 6 + [10**5000]}, "label 6 of 'fine_labels' is of type int"),
        ],
    )
    def test_refused(self, tmp_path, change, said):
        import pickle

        batch = {b"data": np.zeros((7, 3072), np.uint8), "coarse_labels": [0] * 7, "fine_labels": np.arange(7)}
        folder = write_folder(tmp_path / "mine", {"test": pickle.dumps(batch), "train": pickle.dumps(batch)})
        assert len(data.load("cifar100", folder)[0]) == 7
        (folder / "train").write_bytes(pickle.dumps(change(batch)))
        refuse(CIFAR100, folder, f"{folder / 'train'}", said)


class TestArchives:
    """Archives that are not what they were: refused, or read as they were written; never anything else."""

    @pytest.fixture
    def archive(self, case, tmp_path):
        return write_archive(tmp_path / case[1].archive, case[1], plain_files(*case))

    def test_cut_at_every_byte(self, case, archive, page):
        content = archive.read_bytes()
        assert len(content) < 2000
        data.load(case[0].name, archive)
        for size in range(len(content)):
            archive.write_bytes(content[:size])
            page(refuse(case[0], archive, str(archive)))

    def test_a_bigger_one_cut_at_a_sample_of_bytes(self, case, tmp_path):
        archive = write_archive(tmp_path / case[1].archive, case[1], make_files(*case))
        content = archive.read_bytes()
        places = np.random.default_rng(0).integers(0, len(content), 40).tolist()
        for size in [*places, *range(len(content) - 12, len(content))]:
            archive.write_bytes(content[:size])
            refuse(case[0], archive, f"{archive} ({size:,} bytes)", "past byte", "cut short")

    @pytest.mark.parametrize("flip", [0x01, pytest.param(0x80, marks=pytest.mark.slow)])
    def test_damaged_at_every_byte(self, case, archive, flip):
        content = archive.read_bytes()
        right, _ = data.load(case[0].name, archive)
        read, said = 0, set()
        for place in range(len(content)):
            archive.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            try:
                train, _ = data.load(case[0].name, archive)
            except DataError as error:
                said.add(str(archive) in str(error))
                continue
            np.testing.assert_array_equal(train.images, right.images)
            read += 1
        assert said == {True}
        assert read < 30  # what gzip's header says of name and time is of no account

    def test_a_damaged_middle(self, case, tmp_path):
        path = write_archive(tmp_path / case[1].archive, case[1], make_files(*case))
        content = bytearray(path.read_bytes())
        content[5000:5400] = bytes(400)
        path.write_bytes(content)
        refuse(case[0], path, case[1].archive)


class TestMemory:
    """A data set that is larger than the memory."""

    def test_known_before_a_byte_is_read(self, case, tmp_path, monkeypatch):
        folder = write_folder(tmp_path / case[1].folder, make_files(*case))
        archive = write_archive(tmp_path / case[1].archive, case[1], make_files(*case))
        monkeypatch.setattr(files_module, "machine_memory", lambda: 20_000)
        for place in (folder, archive):
            refuse(case[0], place, str(place), "GB of images", "this machine has 0.0 GB")

    def test_a_folder_of_terabytes(self, tmp_path, page):
        binary = CIFAR10.versions[0]
        folder = write_folder(tmp_path / binary.folder, make_files(CIFAR10, binary))
        try:
            with open(folder / binary.train[2], "r+b") as file:
                file.truncate(3073 * 10**9)  # a hole: it takes no place on the disk
        except OSError:
            pytest.skip("the file system has no files of 3 TB")
        page(refuse(CIFAR10, folder, f"{folder} holds 3,073.0 GB of images"))

    def test_memory_that_ends_on_the_way(self, case, tmp_path, monkeypatch, page):
        def full(*args):
            raise MemoryError

        folder = write_folder(tmp_path / case[1].folder, make_files(*case))
        monkeypatch.setattr(files_module, "machine_memory", lambda: None)
        monkeypatch.setattr(files_module.np, "ascontiguousarray", full)
        page(refuse(case[0], folder, f"the memory that is free is not enough to read {folder}"))

    def test_the_machine_says_how_much_it_has(self):
        memory = files_module.machine_memory()
        assert memory is None or memory > 1e8
