"""verify: structure always, official sums where the files claim to be official."""

import dataclasses
import hashlib

import pytest
from cifar_files import COUNT, make_content, make_files, write_archive, write_file, write_folder

from minires import data
from minires.data.cifar.datasets import CIFAR10, CIFAR100, LAYOUTS
from minires.errors import DataError

CASES = [(layout, version) for layout in (CIFAR10, CIFAR100) for version in layout.versions]


@pytest.fixture(params=CASES, ids=[f"{layout.name}-{version.kind}" for layout, version in CASES])
def case(request):
    """(layout, version)"""
    return request.param


def official(layout, version, md5=None):
    """The layout, with small files in the place of the official ones."""
    files = make_files(layout, version)
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()} if version.checksums else {}
    small = dataclasses.replace(version, checksums=checksums, md5=md5 or version.md5)
    versions = tuple(small if other is version else other for other in layout.versions)
    return dataclasses.replace(layout, versions=versions, counts=dict.fromkeys(layout.counts, COUNT))


def verify(layout, place, **options):
    """(those that passed, those that did not), name → note."""
    checks = list(data.verify(layout, place, **options))
    return tuple({check.name: check.note for check in checks if check.passed is passed} for passed in (True, False))


def test_official_files_in_their_folder(case, tmp_path):
    layout, version = case
    folder = write_folder(tmp_path / version.folder, make_files(layout, version))
    passed, failed = verify(official(layout, version), folder)
    assert not failed
    assert tuple(passed) == version.files
    said = "7 images, labels", "md5 as the official file" if version.checksums else "the official size"
    assert all(word in note for note in passed.values() for word in said)


def test_official_archive(case, tmp_path):
    layout, version = case
    for name in (version.archive, "renamed.tgz"):
        path = write_archive(tmp_path / name, version, make_files(layout, version))
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        passed, failed = verify(official(layout, version, md5), path)
        assert not failed
        assert passed[name] == f"the official archive, md5 {md5}"
        assert len(passed) == 1 + len(version.files)


def test_an_archive_that_claims_to_be_official(case, tmp_path):
    layout, version = case
    path = write_archive(tmp_path / version.archive, version, make_files(layout, version))
    passed, failed = verify(layout, tmp_path)
    assert list(failed) == [version.archive]
    assert hashlib.md5(path.read_bytes()).hexdigest() in failed[version.archive]
    assert version.md5 in failed[version.archive]
    assert set(passed) == set(version.files)
    assert verify(layout, path, own=True)[1] == {}
    assert verify(layout, path.rename(tmp_path / "mine.tgz"))[1] == {}


def test_a_folder_that_claims_to_be_official(case, tmp_path):
    layout, version = case
    folder = write_folder(tmp_path / version.folder, make_files(layout, version))
    passed, failed = verify(layout, tmp_path)
    assert not passed
    count = layout.official_count(version.files[0])
    assert f"{folder / version.files[0]} has" in failed[version.files[0]]
    assert f"7 images; the official file {count:,}" in failed[version.files[0]]
    assert verify(layout, folder, own=True)[1] == {}
    assert verify(layout, folder.rename(tmp_path / "mine"))[1] == {}


def test_a_file_of_the_right_size_that_is_another(tmp_path):
    version = CIFAR10.versions[1]
    files = make_files(CIFAR10, version)
    files["data_batch_3"] = write_file(CIFAR10, version, *make_content(CIFAR10, 99))
    write_folder(tmp_path / version.folder, files)
    passed, failed = verify(official(CIFAR10, version), tmp_path)
    assert list(failed) == ["data_batch_3"]
    assert "data_batch_3 has md5" in failed["data_batch_3"]
    assert len(passed) == 5


def test_every_damaged_file_is_named(case, tmp_path):
    layout, version = case
    files = make_files(layout, version)
    for name in version.files:
        files[name] = files[name][:-9]
    for place in (
        write_folder(tmp_path / version.folder, files),
        write_archive(tmp_path / "mine.tgz", version, files),
    ):
        passed, failed = verify(layout, place)
        assert not passed
        assert tuple(failed) == version.files
        assert all("cut short" in note and name in note for name, note in failed.items())


def test_a_damaged_archive(case, tmp_path):
    layout, version = case
    path = write_archive(tmp_path / "mine.tgz", version, make_files(layout, version))
    path.write_bytes(path.read_bytes()[:-3000])
    _, failed = verify(layout, path)
    assert "cut short" in failed["mine.tgz"]
    path.write_bytes(b"")
    assert "cut short" in verify(layout, path)[1]["mine.tgz"]


def test_an_archive_that_cannot_be_read(tmp_path, monkeypatch):
    from minires.data.cifar import verification

    def broken(path):
        raise DataError("cannot be read")

    path = write_archive(tmp_path / "mine.tgz", CIFAR10.versions[0], make_files(CIFAR10, CIFAR10.versions[0]))
    monkeypatch.setattr(verification, "md5_of", broken)
    assert len(verify(CIFAR10, path)[0]) == 6  # its md5 sum is no business of this one


def test_a_missing_file(case, tmp_path):
    layout, version = case
    files = make_files(layout, version)
    del files[version.test[0]]
    _, failed = verify(layout, write_folder(tmp_path / version.folder, files))
    assert f"lacks {version.test[0]}" in failed[version.folder]


def test_nothing_to_check(tmp_path):
    with pytest.raises(DataError, match="holds no cifar10, but nothing"):
        verify(CIFAR10, tmp_path)


def test_official_numbers():
    for layout in LAYOUTS.values():
        for version in layout.versions:
            counts = [sum(map(layout.official_count, names)) for names in (version.train, version.test)]
            assert counts == [50_000, 10_000]
            assert len(version.md5) == 32
            assert not version.checksums or tuple(version.checksums) == version.files
