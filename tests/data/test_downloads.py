"""Downloads from a local server that cuts, stalls, corrupts and more. Nothing here leaves 127.0.0.1."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from cifar_files import make_files, write_archive

from minires import data
from minires.data.cifar import datasets, downloads, files
from minires.errors import ConfigError, DataError

BINARY = datasets.CIFAR10.versions[0]


class Handler(BaseHTTPRequestHandler):
    """Answers every request with the next of the server's answers; the last one is given again and again."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self):
        server = self.server
        server.requests += 1
        how = server.answers[min(server.requests, len(server.answers)) - 1]
        content = server.content
        self.close_connection = True
        if how == "trickling headers":
            self.trickle(b"HTTP/1.1 200 OK\r\nX: ", bytes(100).replace(b"\0", b"x"))
            return
        if how.isdigit():
            self.send_error(int(how))
            return
        self.send_response(200)
        if how not in ("without length, cut", "endless"):
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have gone
            self.send(how, content)

    def send(self, how, content):
        half = len(content) // 2
        if how == "whole":
            self.wfile.write(content)
        elif how.startswith("cut at "):
            self.wfile.write(content[: int(how[7:])])
        elif how == "without length, cut":
            self.wfile.write(content[:half])
        elif how == "corrupt":
            self.wfile.write(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
        elif how == "stall":
            self.wfile.write(content[: half + half // 2])
            self.wfile.flush()
            self.server.over.wait(20)
        elif how == "trickle":
            self.trickle(content[:half], content[half:])
        elif how == "endless":
            for _ in range(200):  # 20 MB: enough for a client that would take it all
                self.wfile.write(bytes(100_000))

    def trickle(self, beginning, rest):
        """A byte every 50 ms, which no limit on the time between two of them would notice."""
        with contextlib.suppress(OSError):
            self.wfile.write(beginning)
            for byte in rest:
                self.wfile.flush()
                if self.server.over.wait(0.05):
                    break
                self.wfile.write(bytes([byte]))

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with a small archive, which takes the place of the official one for this test."""
    content = write_archive(tmp_path / "served.tar.gz", BINARY, make_files(datasets.CIFAR10, BINARY)).read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.content, server.answers, server.requests, server.over = content, ["whole"], 0, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    version = dataclasses.replace(BINARY, md5=hashlib.md5(content).hexdigest(), megabytes=1)
    layout = dataclasses.replace(datasets.CIFAR10, versions=(version, *datasets.CIFAR10.versions[1:]))
    monkeypatch.setitem(datasets.LAYOUTS, "cifar10", layout)
    monkeypatch.setattr(downloads, "SERVER", server.url)
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    monkeypatch.setattr(downloads, "STALL", 10.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path / "cache"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join(10)
    server.server_close()


def nothing_is_left(folder):
    return not folder.exists() or not list(folder.iterdir())


class TestWhole:
    def test_it_comes_whole_and_can_be_loaded(self, server, tmp_path):
        seen = []
        path, fetched = downloads.download("cifar10", progress=lambda done, total: seen.append((done, total)))
        assert (path, fetched) == (tmp_path / "cache/data" / BINARY.archive, True)
        assert path.read_bytes() == server.content
        assert os.listdir(path.parent) == [path.name]
        assert seen[-1] == (len(server.content), len(server.content))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        train, test = data.load("cifar10")
        assert (len(train), len(test)) == (35, 7)

    def test_the_second_time_nothing_is_fetched(self, server, tmp_path):
        downloads.download("cifar10", tmp_path / "a/b")
        assert downloads.download("cifar10", tmp_path / "a/b") == (tmp_path / "a/b" / BINARY.archive, False)
        assert server.requests == 1

    def test_the_second_time_what_a_killed_one_has_left_is_removed(self, server, tmp_path):
        path, _ = downloads.download("cifar10", tmp_path)
        for name, age in (("incomplete-old", 7200), ("incomplete-new", 60)):
            (tmp_path / name).mkdir()
            os.utime(tmp_path / name, (time.time() - age,) * 2)
        assert downloads.download("cifar10", tmp_path) == (path, False)
        assert not (tmp_path / "incomplete-old").exists()
        assert (tmp_path / "incomplete-new").exists()

    def test_another_file_in_its_place_is_left_alone(self, server, tmp_path, page):
        (tmp_path / BINARY.archive).write_bytes(b"mine")
        with pytest.raises(
            DataError, match=f"{BINARY.archive} is there already, and is not the official file: its md5"
        ) as caught:
            downloads.download("cifar10", tmp_path)
        page(str(caught.value))
        assert (tmp_path / BINARY.archive).read_bytes() == b"mine"
        assert server.requests == 0

    @pytest.mark.parametrize("first", ["stall", "cut at 5000", "without length, cut", "corrupt", "503"])
    def test_after_a_fault_it_tries_again(self, server, tmp_path, monkeypatch, first):
        monkeypatch.setattr(downloads, "STALL", 0.5 if first == "stall" else 10.0)
        server.answers, said = [first, "whole"], []
        path, _ = downloads.download("cifar10", tmp_path / "data", say=said.append)
        assert path.read_bytes() == server.content
        assert server.requests == 2
        assert len(said) == 1
        assert said[0].endswith("trying again (2 of 3)")

    def test_pooch_is_left_as_it_was(self, server, tmp_path, capsys):
        level = pooch.get_logger().level
        downloads.download("cifar10", tmp_path / "data")
        assert pooch.get_logger().level == level
        assert capsys.readouterr() == ("", "")


FAULTS = [
    ("cut at 0", 3, "broke off"),
    ("cut at 1", 3, "broke off"),
    ("cut at 60000", 3, "broke off"),
    ("without length, cut", 3, "another md5 sum than the official file"),
    ("corrupt", 3, "another md5 sum than the official file"),
    ("stall", 3, "nothing came for 0 seconds"),
    ("404", 1, "the server answers 404 Not Found"),
    ("403", 1, "the server answers 403 Forbidden"),
    ("500", 3, "the server answers 500"),
    ("endless", 1, "more came than the official file has"),
]


class TestFaults:
    @pytest.mark.parametrize(("answer", "tries", "said"), FAULTS, ids=[fault[0] for fault in FAULTS])
    def test_a_bounded_number_of_tries_one_sentence_and_nothing_left(
        self, server, tmp_path, monkeypatch, answer, tries, said, page
    ):
        monkeypatch.setattr(downloads, "STALL", 0.5 if answer == "stall" else 10.0)
        server.answers = [answer]
        began = time.perf_counter()
        with pytest.raises(DataError, match=BINARY.archive) as caught:
            downloads.download("cifar10", tmp_path / "data")
        page(str(caught.value))
        assert said in str(caught.value)
        assert "nothing was kept" in str(caught.value)
        assert server.requests == tries
        assert time.perf_counter() - began < 20
        assert nothing_is_left(tmp_path / "data")

    def test_cut_at_a_sample_of_bytes(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(downloads, "TRIES", 1)
        size = len(server.content)
        for place in [*np.random.default_rng(0).integers(0, size, 15).tolist(), size - 1]:
            server.answers = [f"cut at {place}"]
            with pytest.raises(DataError, match="nothing was kept"):
                downloads.download("cifar10", tmp_path / "data")
            assert nothing_is_left(tmp_path / "data")

    def test_nobody_there(self, server, tmp_path, monkeypatch, page):
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setattr(downloads, "SERVER", f"http://127.0.0.1:{free.getsockname()[1]}/")
            with pytest.raises(DataError, match="the server cannot be reached") as caught:
                downloads.download("cifar10", tmp_path / "data")
        page(str(caught.value))
        assert nothing_is_left(tmp_path / "data")

    def test_ctrl_c(self, server, tmp_path):
        def interrupt(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            downloads.download("cifar10", tmp_path / "data", progress=interrupt)
        assert nothing_is_left(tmp_path / "data")

    def test_unknown_names(self):
        with pytest.raises(ConfigError, match=r"no data set 'cifar-10' to download \(did you mean cifar10"):
            downloads.download("cifar-10")
        with pytest.raises(ConfigError, match="no 'matlab' version of cifar10: choose one of binary, python"):
            downloads.download("cifar10", kind="matlab")


class TestSlow:
    """A byte now and then, for ever: STALL never comes to pass."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch):
        monkeypatch.setattr(downloads, "PATIENCE", 0.6)
        monkeypatch.setattr(downloads, "SLOWEST", 1000)
        monkeypatch.setattr(downloads, "CHUNK", 500)

    @pytest.mark.parametrize("answer", ["trickle", "trickling headers"])
    def test_it_is_given_up(self, server, tmp_path, monkeypatch, answer, page):
        monkeypatch.setattr(downloads, "TRIES", 2)
        server.answers, said = [answer], []
        began = time.perf_counter()
        with pytest.raises(
            DataError, match=r"nothing was kept: less than 1 kB came in 1 seconds, after \d\.\d MB"
        ) as caught:
            downloads.download("cifar10", tmp_path / "data", say=said.append)
        assert time.perf_counter() - began < 20  # 1.3 s where nothing else runs
        page(str(caught.value))
        assert len(said) == server.requests - 1 == 1
        assert nothing_is_left(tmp_path / "data")

    def test_the_next_try_is_whole_whatever_the_one_before_still_does(self, server, tmp_path):
        server.answers = ["trickle", "whole"]
        path, _ = downloads.download("cifar10", tmp_path / "data")
        assert path.read_bytes() == server.content
        server.over.set()
        for thread in threading.enumerate():
            if thread.name == "minires-download":
                thread.join(10)
                assert not thread.is_alive()
        assert os.listdir(tmp_path / "data") == [path.name]
        assert path.read_bytes() == server.content

    def test_slow_but_not_too_slow(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(downloads, "SLOWEST", 1)
        monkeypatch.setattr(downloads, "CHUNK", 1)
        server.content = server.content[:30]
        version = dataclasses.replace(BINARY, md5=hashlib.md5(server.content).hexdigest(), megabytes=1)
        layout = dataclasses.replace(datasets.CIFAR10, versions=(version,))
        monkeypatch.setitem(datasets.LAYOUTS, "cifar10", layout)
        server.answers = ["trickle"]
        path, _ = downloads.download("cifar10", tmp_path / "data")
        assert path.read_bytes() == server.content
        assert server.requests == 1


class TestDisk:
    def test_too_little_room_is_said_before_anything_is_fetched(self, server, tmp_path, monkeypatch, page):
        usage = downloads.shutil.disk_usage(tmp_path)
        monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage._replace(free=300_000))
        with pytest.raises(
            DataError, match=r"has 0 MB left, and .* takes 1 MB: make room, or give another folder"
        ) as caught:
            downloads.download("cifar10", tmp_path / "data")
        page(str(caught.value))
        assert server.requests == 0

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_disk_that_is_full_on_the_way(self, server, tmp_path, monkeypatch, number, page):
        def full(self, count):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(downloads._Meter, "update", full)
        with pytest.raises(
            DataError, match=f"the disk of {tmp_path / 'data'} is full, and nothing of .* was kept"
        ) as caught:
            downloads.download("cifar10", tmp_path / "data")
        page(str(caught.value))
        assert nothing_is_left(tmp_path / "data")
        assert server.requests == 1

    def test_a_folder_below_a_file(self, server, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"file is a file, not a folder: give another folder"):
            downloads.download("cifar10", tmp_path / "file/data")

    def test_a_folder_that_is_not_writable(self, server, tmp_path, monkeypatch):
        def locked(*args, **kwargs):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(downloads.tempfile, "TemporaryDirectory", locked)
        with pytest.raises(DataError, match=f"{tmp_path} cannot be written to: Permission denied"):
            downloads.download("cifar10", tmp_path)

    def test_a_file_that_cannot_be_read(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            downloads.md5_of(tmp_path)


KILLED = """
import sys
from minires.data.cifar import downloads
downloads.SERVER = sys.argv[1]
downloads.download("cifar10", sys.argv[2], progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise")
def test_a_killed_download_leaves_nothing_that_is_taken_for_data(server, tmp_path, page):
    server.answers = ["stall", "whole"]
    folder = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, server.url, str(folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline().strip().isdigit()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        process.stdout.close()
    (left,) = folder.iterdir()
    assert left.name.startswith(downloads.PREFIX)
    assert any(path.stat().st_size for path in left.iterdir())
    with pytest.raises(DataError, match="holds no cifar10, but incomplete-") as caught:
        files.find(datasets.CIFAR10, folder)
    page(str(caught.value))

    path, _ = downloads.download("cifar10", folder)  # a fresh one is left alone: it may be another download's
    assert sorted(folder.iterdir()) == sorted([path, left])
    path.unlink()
    for old in (*left.iterdir(), left):
        os.utime(old, (0, 0))
    path, _ = downloads.download("cifar10", folder)
    assert list(folder.iterdir()) == [path]
    assert path.read_bytes() == server.content
