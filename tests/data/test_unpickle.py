"""The unpickler: NumPy arrays and plain containers, and nothing else."""

import collections
import contextlib
import datetime
import io
import os
import pickle
import random
import sys
import threading
import warnings

import numpy as np
import pytest
from cifar_files import make_content, write_python
from hypothesis import given
from hypothesis import strategies as st

from minires.data.cifar.datasets import CIFAR10, CIFAR100
from minires.data.pickles.arrays import unpickle
from minires.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(content):
    return unpickle(io.BytesIO(content), "some/file")


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [3, 1], "names": ("a", b"b\xff")},
        [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(3, dtype=">i4"), np.array(True), np.float32([1.5])],
        np.zeros((0, 3), np.int16),
        np.arange(20)[::3],
        [None, True, False, 0, 255, 65535, -1, 2**31, 2**70, -(2**70), 0.5, "é", b"", "", (), {}, []],
        [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [1], {1: 2}, "x" * 300, b"x" * 300, bytearray(b"x")][:-1],
    ],
    ids=["batch", "arrays", "empty", "strided", "values", "containers"],
)
def test_what_is_admitted_is_read_as_it_was(protocol, value):
    assert same(read(pickle.dumps(value, protocol)), value)


def test_a_bytearray():
    assert read(pickle.dumps(bytearray(b"x"), 5)) == b"x"


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.name)
def test_what_python_2_wrote(layout):
    images, labels = make_content(layout, 0, 300)
    batch = read(write_python(layout, images, labels))
    np.testing.assert_array_equal(batch["data"], images.transpose(0, 3, 1, 2).reshape(-1, 3072))
    assert [batch[key] for key in layout.label_keys] == labels
    assert batch["filenames"][299] == "299.png"
    assert batch == pickle.loads(write_python(layout, images[:0], labels), encoding="latin-1") | {
        "data": batch["data"],
        "filenames": batch["filenames"],
    }


def test_objects_used_twice_are_one():
    a = np.arange(3)
    x = [1]
    first, second, b, c = read(pickle.dumps([x, x, a, a]))
    assert first is second
    assert b is c


class Runs:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


class Plain:
    pass


REFUSED = {
    "os.system": (Runs(os.system, "echo was run > ran"), ("posix.system", "nt.system")),
    "eval": (Runs(eval, "open('ran', 'w')"), ("builtins.eval", "__builtin__.eval")),
    "open": (Runs(open, "ran", "w"), ("io.open", "_io.open")),
    "getattr": (Runs(getattr, [], "append"), ("getattr",)),
    "a class": (random.Random, ("random.Random",)),
    "an instance": (Plain(), ("copyreg", "copy_reg", "Plain")),
    "a date": (datetime.date(2020, 1, 1), ("datetime.date",)),
    "a named container": (collections.OrderedDict(a=1), ("collections.OrderedDict",)),
    "an object array": (np.array([None, 1]), ("dtype 'O8'",)),
    "a record array": (np.zeros(3, [("a", int)]), ("dtype 'V8'",)),
    "dates": (np.zeros(3, "M8[s]"), ("dtype 'M8'",)),
    "text array": (np.array(["abc"]), ("dtype 'U3'",)),
    "a numpy scalar": (np.float64(1), ("multiarray.scalar",)),
    "a masked array": (np.ma.zeros(3), ("_mareconstruct",)),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_before_it_does_anything(name, protocol, tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    value, said = REFUSED[name]
    content = pickle.dumps({"data": [value]}, protocol)
    with pytest.raises(DataError, match=r"some/file.*at byte [\d,]+") as caught:
        read(content)
    page(str(caught.value))
    assert any(word in str(caught.value) for word in said), caught.value
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x04\x8f.", "EMPTY_SET"),
        (b"(i__main__\nX\n.", "INST"),
        (b"(cnumpy\nndarray\no.", "OBJ"),
        (b"Pid\n.", "PERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"cnumpy\nndarray\n.", "the name numpy.ndarray by itself"),
        (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"cnumpy\nndarray\n)R.", "numpy.ndarray in a way that builds no array"),
        (b"cnumpy\ndtype\nU\x02u1\x85R.", "holds a dtype by itself"),
        (b"cnumpy.core.multiarray\n_reconstruct\n)R.", "an array without content"),
        (b"cnumpy\ndtype\nU\x02u1\x85R(K\x03U\x01|U\x01aNNtb.", "something other than numbers"),
        (b"]K\x01R.", "calls something that is not a function"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "_codecs.encode"),
        (b"]}b.", "sets the state of a list"),
        (b"cnumpy\nndarray\n}b.", "sets the state of a Name"),
        (b"N.N", "the file goes on"),
        (b"", "damaged pickle"),
        (b".", "damaged pickle"),
        (b"N", "damaged pickle"),
        (b"h\x05.", "damaged pickle"),
        (b"t.", "damaged pickle"),
        (b"\x87.", "too little on the stack"),
        (b"NNa.", "an instruction for a list meets a NoneType"),
        (b"}]Ns.", "a key (list) that is neither a string"),
        (b"})Ns.", "a key (tuple) that is neither a string"),
        (b"}(I2147483648\nNd.", "a key (int) that is neither a string"),
        (b"}(X\xe9\x03\x00\x00" + b"x" * 1001 + b"Nd.", "a key (str) that is neither a string"),
        (b"(cx\n" + b"y" * 10**5 + b"\n.", "yyy …, which a file of arrays does not need"),
        (b"F" + b"1" * 10**5 + b"x\n.", "111 … (at byte"),
        (b"]K\x01\x93.", "asks for a name that is not text"),
        (b"]K\x01a\x940(lh\x00ah\x00ah\x00h\x00a.", "hold themselves"),
        (b"}(Nu.", "damaged pickle"),
        (b"}(K\x01NK\x01u.", "damaged pickle"),
        (b"<html>not found</html>", "damaged pickle"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "damaged pickle"),
    ],
)
def test_made_up_pickles(content, said):
    with pytest.raises(DataError, match=r"some/file") as caught:
        read(content)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_array_of_numbers_whose_content_is_a_list_of_objects(protocol):
    reconstruct, arguments, (_, shape, dtype, fortran, _) = np.arange(2).__reduce__()
    made = Runs(reconstruct, *arguments)
    made.made = (*made.made, (1, shape, dtype, fortran, [7, None]))
    with pytest.raises(DataError, match="it holds an array of objects"):
        read(pickle.dumps(made, protocol))


def test_an_array_that_claims_more_bytes_than_there_are():
    content = pickle.dumps(np.arange(4, dtype=np.uint8), 2)
    assert content.count(b"K\x04\x85") == 1
    with pytest.raises(DataError, match=r"gives 4 bytes to an array of shape \(5,\)"):
        read(content.replace(b"K\x04\x85", b"K\x05\x85"))


def test_nothing_is_imported():
    before = set(sys.modules)
    with pytest.raises(DataError, match=r"xml\.dom\.expatbuilder\.parse"):
        read(b"cxml.dom.expatbuilder\nparse\n.")
    assert not {name for name in set(sys.modules) - before if name.startswith("xml")}


def test_threads_leave_the_filters_of_warnings_as_they_were():
    """The second reading begins within the first, if it can, and ends after it."""
    first, second = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def readline(self, *arguments):
            second.set()
            first.wait(5)
            return super().readline(*arguments)

    class WithinIt(io.BytesIO):
        def readline(self, *arguments):
            thread.start()
            second.wait(0.2)
            return super().readline(*arguments)

    filters = list(warnings.filters)
    thread = threading.Thread(target=unpickle, args=(Slow(b"I1\n."), "second"))
    assert unpickle(WithinIt(b"I1\n."), "first") == 1
    first.set()
    thread.join()
    assert warnings.filters == filters


def small_file(protocol):
    batch = {"data": np.arange(12, dtype=np.uint8).reshape(2, 6), "labels": [1, 300], "filenames": ["a", "b"]}
    return pickle.dumps(batch, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cut_at_every_byte(protocol, page):
    content = small_file(protocol)
    for size in range(len(content)):
        with pytest.raises(DataError, match=f"some/file \\({size} bytes\\) is a damaged pickle") as caught:
            read(content[:size])
        page(str(caught.value))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_damaged_at_every_byte(protocol, flip):
    """A pickle has no checksum: what is read may be another value, but of the same plain kinds, or it is refused."""
    content = small_file(protocol)
    refused = 0
    for place in range(len(content)):
        try:
            read(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        except DataError:
            refused += 1
    assert refused > len(content) / 3


@given(st.binary(max_size=60))
def test_random_bytes(content):
    with contextlib.suppress(DataError):
        read(content)


@given(
    st.lists(st.sampled_from([bytes([b]) for b in b"()]}0123NK\x01ldtasuebRqh\x94\x85\x86\x87\x88\x89."]), max_size=30)
)
def test_random_instructions(parts):
    with contextlib.suppress(DataError):
        read(b"".join(parts) + b".")
