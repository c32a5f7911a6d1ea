"""Compiled kernels are read only from folders and files that nobody but the user and root can change."""

import grp
import os
import pickle
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from minires.kernels.runtime import cache_folder, jit, kernel_files, trust

ROOT = Path(__file__).parents[2]
NAME = "kernels-avx2-0123456789ab"
pytestmark = pytest.mark.skipif(not trust.POSIX, reason="files have no owner")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
STRANGER = 65534


class TestResolve:
    def test_a_folder_of_mine(self, tmp_path):
        assert trust.resolve(tmp_path, own=True) == tmp_path.resolve()
        assert trust.resolve(tmp_path / "a" / "b") == tmp_path.resolve() / "a" / "b"

    def test_links_and_dots_are_followed_as_the_system_does(self, tmp_path, monkeypatch):
        (tmp_path / "real" / "inner").mkdir(parents=True)
        (tmp_path / "link").symlink_to("real/inner")
        (tmp_path / "chain").symlink_to(tmp_path / "link")
        monkeypatch.chdir(tmp_path)
        for path in ("chain", "link/../inner", "link/.", "chain/../../link", tmp_path / "link"):
            assert trust.resolve(path) == Path(os.path.realpath(path))

    def test_a_circle_of_links(self, tmp_path):
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(OSError, match=r"[Ss]ymbolic links"):
            trust.resolve(tmp_path / "a")

    @pytest.mark.parametrize("mode", [0o777, 0o757, 0o702])
    def test_a_folder_that_everybody_can_write_to(self, tmp_path, mode):
        folder = tmp_path / "shared" / "cache"
        folder.mkdir(parents=True)
        folder.parent.chmod(mode)
        with pytest.raises(trust.UntrustedError, match=f"{folder.parent} can be written to by everybody"):
            trust.resolve(folder)
        folder.parent.chmod(mode | 0o1000)  # sticky: nobody can replace the folder in it
        assert trust.resolve(folder, own=True) == folder.resolve()
        with pytest.raises(trust.UntrustedError, match="everybody"):
            trust.resolve(folder.parent, own=True)

    def test_a_folder_that_a_group_can_write_to(self, tmp_path, monkeypatch):
        me = pwd.getpwuid(os.geteuid()).pw_name
        tmp_path.chmod(0o770)
        groups = {"of mine alone": (me, []), "of several": (me, ["eve"]), "another": ("staff", [])}
        for what, (name, members) in groups.items():
            trust._is_private.cache_clear()
            monkeypatch.setattr(trust, "_group", lambda gid, name=name, members=members: (name, members))
            monkeypatch.setattr(trust, "_is_private", trust._is_private.__wrapped__)
            gid = 4321
            status = os.stat_result((0o40770, 0, 0, 0, os.geteuid(), gid, 0, 0, 0, 0))
            found = trust.other_writers(tmp_path, status)
            assert (found is None) == (what == "of mine alone"), what
            monkeypatch.undo()
        trust._is_private.cache_clear()

    def test_an_access_control_list_may_let_others_write(self, tmp_path, monkeypatch):
        status = os.stat_result((0o40770, 0, 0, 0, os.geteuid(), 0, 0, 0, 0, 0))
        monkeypatch.setattr(trust, "_is_private", lambda gid: True)
        assert trust.other_writers(tmp_path, status) is None
        monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"], raising=False)
        assert "group" in trust.other_writers(tmp_path, status)

    def test_root_and_i_alone_are_trusted(self, monkeypatch):
        def owned(uid):
            return trust.stranger(os.stat_result((0o40755, 0, 0, 0, uid, 0, 0, 0, 0, 0)))

        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert owned(0) is owned(1000) is None
        assert owned(1001) == "belongs to user 1001" or "belongs to" in owned(1001)

    @as_root
    @pytest.mark.parametrize("part", ["", "cache", "link"])
    def test_another_users_folder_or_link(self, tmp_path, part):
        (tmp_path / "cache").mkdir()
        (tmp_path / "link").symlink_to("cache")
        os.chown(tmp_path / part, STRANGER, STRANGER, follow_symlinks=False)
        with pytest.raises(trust.UntrustedError, match=f"{tmp_path / part} belongs to {trust._user_name(STRANGER)}"):
            trust.resolve(tmp_path / "link")


def kernel_names():
    """The names of the files that cross_entropy looks for."""
    import numpy as np

    from minires.kernels.compiled import loss

    loss.cross_entropy(np.zeros((2, 4), np.float32), np.zeros(2, np.int64), 0.0)
    functions = (loss._cross_entropy,)
    return [f._cache.file_name(signature) for f in functions for signature in f.signatures]


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, evidence):
        self.evidence = evidence

    def __reduce__(self):
        return os.system, (f"touch {self.evidence}",)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where kernels are kept instead, so that they are compiled once."""
    return tmp_path_factory.mktemp("home")


@as_root
class TestAnotherUser:
    """What another user puts where minires looks is not run. As root, who can become another user."""

    @pytest.fixture
    def place(self):
        with tempfile.TemporaryDirectory(prefix="minires-test-") as folder:  # pytest's own folders are root's alone
            os.chmod(folder, 0o1777)
            yield Path(folder)

    def plant(self, folder, evidence):
        """What another user may put there: the kernels' files, as minires writes them, whose contents touch ``evidence``."""
        made = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True)
        for name in kernel_names():
            kernel_files.write(folder / name, pickle.dumps(Evil(evidence)))
        for path in (*made, *folder.iterdir()):
            os.chown(path, STRANGER, STRANGER)

    @pytest.mark.parametrize("how", ["MINIRES_CACHE_DIR", "NUMBA_CACHE_DIR", "link", "relative", "TMPDIR", "inside"])
    def test_their_files_are_not_run(self, place, home, tmp_path, how):
        base, cwd = place / "cache", "/"
        folder = base / jit.FOLDERS.folder.name
        environment = {"MINIRES_CACHE_DIR": str(base), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT)}
        if how == "NUMBA_CACHE_DIR":
            folder = base / "minires" / folder.name
            environment |= {"MINIRES_CACHE_DIR": "", "NUMBA_CACHE_DIR": str(base)}
        elif how == "link":
            (tmp_path / "link").symlink_to(base)
            environment["MINIRES_CACHE_DIR"] = str(tmp_path / "link")
        elif how == "relative":
            environment["MINIRES_CACHE_DIR"], cwd = "cache", place
        elif how == "TMPDIR":
            folder = place / "minires-0" / folder.name
            blocked = tmp_path / "file"
            blocked.touch()
            environment |= {"MINIRES_CACHE_DIR": str(blocked), "TMPDIR": str(place), "XDG_CACHE_HOME": str(blocked)}
        elif how == "inside":  # my folder, in theirs
            folder = place / "theirs" / "cache" / folder.name
            environment["MINIRES_CACHE_DIR"] = str(folder.parent)
        self.plant(folder, place / "evidence")
        if how == "inside":
            for path in (folder.parent, folder, *folder.iterdir()):
                os.chown(path, 0, 0)
        code = """
import numpy as np
from minires.kernels.runtime import jit
from minires.kernels.compiled import backend as fast
losses, _ = fast.cross_entropy(np.zeros((2, 4), np.float32), np.zeros(2, np.int64), 0.0)
assert abs(losses[0] - np.log(4)) < 1e-6
print(jit.FOLDERS.folder)
"""
        found = subprocess.run(
            [sys.executable, "-P", "-c", code], env=os.environ | environment, cwd=cwd, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        assert not (place / "evidence").exists()
        assert Path(found.stdout.strip()) != folder
        assert "minires does not trust compiled kernels in" in found.stderr
        assert f"belongs to {trust._user_name(STRANGER)}" in found.stderr

    def test_their_files_would_be_run_if_they_were_roots(self, place):
        """So that the evidence would be seen above."""
        folder = place / jit.FOLDERS.folder.name
        self.plant(folder, place / "evidence")
        for path in folder.iterdir():
            with pytest.raises(kernel_files.RejectedFile, match="belongs to"):
                kernel_files.read(path)
            os.chown(path, 0, 0)
            pickle.loads(kernel_files.read(path))
        assert (place / "evidence").exists()

    def test_a_read_only_cache_of_roots_is_used(self, place):
        """And one of another user's is not, by a user who may not write to either."""
        folder = place / "cache" / NAME
        kernel_files.make_folder(folder)
        kernel_files.write(folder / "loss.f-1.0123.kernel", b"content")
        code = f"""
import os
from minires.kernels.runtime import cache_folder, kernel_files
os.setgid({STRANGER}); os.setuid({STRANGER})
found = cache_folder.choose("", {NAME!r})
print(found.shared, kernel_files.read(found.shared / "loss.f-1.0123.kernel") if found.shared else found.untrusted)
"""
        own = place / "own"
        own.mkdir()
        os.chown(own, STRANGER, STRANGER)
        environment = {"MINIRES_CACHE_DIR": str(folder.parent), "XDG_CACHE_HOME": str(own), "PYTHONPATH": str(ROOT)}

        def by_another():
            return subprocess.run(
                [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, cwd="/"
            )

        found = by_another()
        assert found.stdout == f"{folder} b'content'\n", found.stderr
        os.chown(folder, 12345, 12345)
        assert by_another().stdout.startswith(f"None ['{folder} ({folder} belongs to user 12345)']")


@pytest.fixture
def bases(tmp_path, monkeypatch):
    """Two folders that may hold the cache, which do not exist yet."""
    names = [tmp_path / name for name in ("first", "second")]
    monkeypatch.setattr(cache_folder, "bases", lambda numba_folder: names)
    return names


def test_an_untrusted_folder_is_named(bases, page):
    bases[0].mkdir()
    bases[0].chmod(0o777)
    with pytest.warns(UserWarning, match="trust") as caught:
        cache_folder.warn(cache_folder.choose("", NAME))
    assert len(caught) == 1
    page(str(caught[0].message))


class TestChoice:
    def test_the_first_is_made(self, bases):
        assert cache_folder.choose("", NAME) == cache_folder.Folders(bases[0] / NAME)
        assert not bases[1].exists()

    @pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
    def test_modes(self, bases, umask):
        """Others may read, if the umask lets them, and never write."""
        before = os.umask(umask)
        try:
            folder = cache_folder.choose("", NAME).folder
            kernel_files.write(folder / "a.kernel", b"a")
        finally:
            os.umask(before)
        for path, mode in ((bases[0], 0o755), (folder, 0o755), (folder / "a.kernel", 0o644)):
            assert path.stat().st_mode & 0o7777 == mode & ~umask

    def test_an_untrusted_one_is_passed_by(self, bases):
        bases[0].mkdir()
        bases[0].chmod(0o777)
        found = cache_folder.choose("", NAME)
        assert found.folder == bases[1] / NAME
        assert found.untrusted == [f"{bases[0] / NAME} ({bases[0]} can be written to by everybody)"]
        assert not list(bases[0].iterdir())

    @pytest.mark.parametrize("full", [False, True])
    def test_a_read_only_one_with_kernels_is_read_first(self, bases, monkeypatch, full):
        folder = cache_folder.choose("", NAME).folder
        if full:
            kernel_files.write(folder / "a.kernel", b"a")
        make = tempfile.TemporaryFile

        def read_only(dir):
            if Path(dir) == folder:
                raise OSError(30, "Read-only file system")
            return make(dir=dir)

        monkeypatch.setattr(cache_folder.tempfile, "TemporaryFile", read_only)
        found = cache_folder.choose("", NAME)
        assert found.folder == bases[1] / NAME
        assert found.reading == ([folder] if full else []) + [bases[1] / NAME]
        assert found.unwritable == ([] if full else [f"{folder} (Read-only file system)"])

    def test_the_home_folders_tilde(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("MINIRES_CACHE_DIR", "~/kernels")
        assert cache_folder.bases("")[0] == tmp_path / "kernels"
        monkeypatch.setenv("MINIRES_CACHE_DIR", "~nobody-of-this-name/kernels")
        assert cache_folder.bases("")[0] == Path("~nobody-of-this-name/kernels")


def test_groups_have_names():
    gid = os.getegid()
    assert trust._group(gid)[0] == grp.getgrgid(gid).gr_name
    assert trust._group(987654) == ("987654", [])
