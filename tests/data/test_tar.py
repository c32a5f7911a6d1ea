"""The archive reader, against archives that Python's tarfile writes."""

import gzip
import io
import tarfile

import pytest
from cifar_files import make_files, write_archive
from hypothesis import given
from hypothesis import strategies as st

from minires import data
from minires.data.cifar import tar
from minires.data.cifar.datasets import CIFAR10
from minires.errors import DataError

BINARY = CIFAR10.versions[0]
FILES = make_files(CIFAR10, BINARY, 2)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def pack(members, format=tarfile.PAX_FORMAT, **options):
    """The bytes of a .tar.gz with these members, (TarInfo or name, content)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=format, **options) as archive:
        for info, content in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def read(content):
    return [(member.name, member.read()) for member in tar.members(io.BytesIO(content), len(content))]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("folder", ["cifar", "./cifar", "x" * 90 + "/" + "y" * 60], ids=["short", "dot", "long"])
def test_all_formats(format, folder):
    members = [(f"{folder}/{name}", content) for name, content in FILES.items()]
    assert read(pack(members, format)) == members


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=160), st.binary(max_size=1100))
    ),
    st.sampled_from(["gnu", "pax"]),
)
def test_what_tarfile_writes_is_read(members, format):
    members = [(f"a/{name.replace('/', '_').replace('..', '__')}.bin", content) for name, content in members]
    content = pack(members, FORMATS[format], encoding="utf-8")
    assert read(content) == members
    assert [member.name for member in tar.members(io.BytesIO(content), len(content))] == [name for name, _ in members]


def test_folders_fractional_times_and_other_peoples_attributes(tmp_path):
    (tmp_path / "cifar").mkdir()
    for name, content in FILES.items():
        (tmp_path / "cifar" / name).write_bytes(content)
    with tarfile.open(tmp_path / "a.tgz", "w:gz", pax_headers={"comment": "of the whole archive"}) as archive:
        archive.add(tmp_path / "cifar", "cifar")  # times are fractions of seconds: in pax headers
        info = tarfile.TarInfo("cifar/._data_batch_1.bin")
        info.pax_headers = {"LIBARCHIVE.xattr.com.apple.quarantine": "MDA4MQ", "SCHILY.dev": "5"}
        archive.addfile(info)
    found = dict(read((tmp_path / "a.tgz").read_bytes()))
    assert found == {f"cifar/{name}": content for name, content in FILES.items()} | {info.name: b""}
    assert len(data.load("cifar10", tmp_path / "a.tgz")[0]) == 10


def test_an_archive_without_its_end_mark_and_one_of_several_gzip_members():
    whole = gzip.decompress(pack(FILES.items()))
    size = len(whole.rstrip(b"\0"))
    whole = whole[: size + -size % 512]
    assert read(gzip.compress(whole)) == list(FILES.items())
    assert read(gzip.compress(whole[:700]) + gzip.compress(whole[700:])) == list(FILES.items())


def test_sums_of_signed_bytes_and_big_endian_sizes_are_understood():
    (name, content), *_ = FILES.items()
    block = bytearray(tarfile.TarInfo("ä/" + name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + len(content).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in block)
    whole = bytes(block) + content + bytes(-len(content) % 512)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert archive.getmembers()[0].size == len(content)
    assert read(gzip.compress(whole)) == [("ä/" + name, content)]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"M", "of the unknown type b'M'"),
        ("/etc/passwd", "the name of its member /etc/passwd leads out of the archive's folder"),
        ("a/../../b", "the name of its member a/../../b leads out of the archive's folder"),
        ("..", "leads out of the archive's folder"),
        ("a" * 1001, "the name of a member has 1,001 characters"),
    ],
)
def test_what_is_refused(kind, said, tmp_path, page):
    info = tarfile.TarInfo("cifar/evil\x1b[2J" if isinstance(kind, bytes) else kind)
    if isinstance(kind, bytes):
        info.type, said = kind, f"its member cifar/evil\\x1b[2J is {said}"
    (tmp_path / "a.tgz").write_bytes(pack([(info, b""), *FILES.items()]))
    with pytest.raises(DataError) as caught:
        data.load("cifar10", tmp_path / "a.tgz")
    assert said in str(caught.value)
    page(str(caught.value))


def test_only_as_much_as_is_asked_for_is_read(tmp_path):
    """Members may be skipped, and are checked all the same."""
    content = pack(FILES.items())
    assert [member.size for member in tar.members(io.BytesIO(content), len(content))] == [6146] * len(FILES)
    with pytest.raises(EOFError):
        list(tar.members(io.BytesIO(content[:-4]), len(content)))
    path = write_archive(tmp_path / "a.tgz", BINARY, FILES)
    assert len(data.load("cifar10", path)[1]) == 2
