"""Compiled code is kept in minires' own cache folder, is never stale, and other packages' caches are untouched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minires import kernels
from minires.errors import ConfigError
from minires.kernels.runtime import jit

ROOT = Path(__file__).parents[2]


def python(code, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the kernels' sources, from which the hash is computed."""
    folder = tmp_path / "kernels"
    shutil.copytree(jit.KERNELS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(jit, "KERNELS", folder)
    return folder


def test_the_folders_name_depends_on_the_sources(sources):
    before = jit.source_hash()
    assert jit.FOLDERS.folder.name.endswith(before)
    tile = sources / "convolution" / "microkernel.py"
    tile.write_text(tile.read_text() + "\n")
    edited = jit.source_hash()
    assert edited != before
    tile.rename(tile.with_name("microkernels.py"))
    assert jit.source_hash() not in (before, edited)


@pytest.mark.parametrize("name", ["TRIPLE", "CPU_NAME", "CPU_FEATURES"])
def test_the_folders_name_depends_on_the_target(monkeypatch, name):
    before = jit.source_hash()
    monkeypatch.setattr(jit.target, name, "another")
    assert jit.source_hash() != before


def test_the_folders_name_depends_on_numbas_version(monkeypatch):
    before = jit.source_hash()
    monkeypatch.setattr(jit.numba, "__version__", "0.0.1")
    assert jit.source_hash() != before


def test_other_packages_caches_are_untouched(tmp_path):
    """Numba's setting is unchanged, and a foreign function is cached where it belongs."""
    module = tmp_path / "foreign.py"
    module.write_text("import numba\n@numba.njit(cache=True)\ndef f(x):\n    return x + 1\n")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import numba
from minires.kernels.runtime import jit
from minires.kernels.compiled import backend as fast
assert numba.config.CACHE_DIR == {str(tmp_path / "elsewhere")!r}, numba.config.CACHE_DIR
assert fast.matmul.__module__
import foreign
assert foreign.f(1) == 2
print(jit.FOLDERS.folder)
"""
    found = python(code, NUMBA_CACHE_DIR=str(tmp_path / "elsewhere"), MINIRES_CACHE_DIR=str(tmp_path / "own"))
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).parent == tmp_path / "own"
    assert list((tmp_path / "elsewhere").rglob("foreign*.nbi"))
    assert not list((tmp_path / "own").rglob("foreign*"))


def test_compiled_code_is_kept_and_the_first_compilation_announced(tmp_path):
    code = """
import numpy as np
from minires.kernels.runtime import jit
from minires.kernels.compiled import backend as fast
fast.cross_entropy(np.zeros((2, 3), np.float32), np.zeros(2, np.int64), 0.0)
print(jit.compiles.kernels, jit.compiles.seconds > 0)
"""
    first, second = (python(code, MINIRES_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "_cross_entropy" in first.stdout
    assert "True" in first.stdout
    assert first.stderr.count("compiling") == 1
    assert str(tmp_path) in first.stderr
    assert second.stdout.split() == ["[]", "False"]
    assert second.stderr == ""
    (folder,) = tmp_path.iterdir()
    assert list(folder.glob("*.kernel"))


# Modules that register what Numba can compile.
COMPILING = {
    "numba.np.linalg",
    "numba.np.arraymath",
    "numba.typed.typeddict",
}
STEP = """
import sys
import numpy as np
from minires.kernels.runtime import jit
from minires.kernels.compiled import backend as fast
losses, _ = fast.cross_entropy(np.zeros((2, 4), np.float32), np.zeros(2, np.int64), 0.0)
assert abs(losses[0] - np.log(4)) < 1e-6
assert fast.add(np.ones((200, 200)), np.ones((200, 200))).sum() == 80000
"""


def test_compiled_kernels_load_without_the_modules_that_compiling_needs(tmp_path):
    """And a function that is compiled afterwards, with its own arrays, still finds them."""
    code = f"""{STEP}
print(sorted({COMPILING!r} & set(sys.modules)))
import numba
@numba.njit
def f(x):
    return np.sum(x * np.ones(3)) + np.sort(x)[0]
assert f(np.array([3.0, 1.0, 2.0])) == 7
print(jit.compiles.kernels)
"""
    assert python(STEP, MINIRES_CACHE_DIR=str(tmp_path)).returncode == 0
    found = python(code, MINIRES_CACHE_DIR=str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["[]", "[]"]


def test_a_numba_that_keeps_its_functions_elsewhere_still_loads_kernels(tmp_path):
    assert python(STEP, MINIRES_CACHE_DIR=str(tmp_path)).returncode == 0
    code = f"""
import numba.core.runtime.nrt
from minires.kernels.runtime import kernel_cache, jit
assert kernel_cache.know_symbols.__wrapped__()
numba.core.runtime.nrt.rtsys.initialize(numba.core.registry.cpu_target.target_context)
del numba.core.runtime._nrt_python.c_helpers
{STEP}
print(kernel_cache.know_symbols(), sorted({COMPILING!r} - set(sys.modules)), jit.compiles.kernels)
"""
    found = python(code, MINIRES_CACHE_DIR=str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["False", "[]", "[]"]


def test_the_engine_gets_no_inner_functions(tmp_path):
    """It would link calls to them, in place of their optimised copies, until a next process loads kernels from the cache."""
    code = f"""{STEP}
from numba.core.codegen import JITCPUCodegen
added, add = [], JITCPUCodegen._add_module
JITCPUCodegen._add_module = lambda self, module: (added.append(module.name), add(self, module))[1]
x = np.random.default_rng(0).standard_normal((2, 5, 5, 16))
y = fast.conv2d(x, np.ones((3, 3, 16, 16)), (1, 1), (1, 1), (1, 1), 1)
assert np.allclose(y[0, 2, 2], x[0, 1:4, 1:4].sum())
print(sorted(added))
"""
    found = python(code, MINIRES_CACHE_DIR=str(tmp_path), MINIRES_PRECOMPILE="0")
    assert found.returncode == 0, found.stderr
    assert "'_convolve'" in found.stdout
    assert "'inner'" not in found.stdout


def test_functions_without_a_module_compile():
    """exec() makes such functions, and the compile watcher sees the functions of all packages."""
    code = """
import numba, minires.kernels.runtime.jit
made = {}
exec("def f(x): return x + 1", made)
made["f"].__module__ = None
assert numba.njit(made["f"])(1) == 2
"""
    found = python(code)
    assert found.returncode == 0, found.stderr


def test_an_unwritable_folder_is_replaced_with_a_warning(tmp_path):
    """A read-only home, say: another folder is used, with a warning that names it and says what to set."""
    (tmp_path / "file").write_text("not a folder")
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from minires.kernels.runtime import jit
print(jit.FOLDERS.folder)
print([str(w.message) for w in caught])
"""
    unwritable = {"MINIRES_CACHE_DIR": str(tmp_path / "file"), "NUMBA_CACHE_DIR": str(tmp_path / "good")}
    found = python(code, **unwritable)
    folder, message = found.stdout.splitlines()
    assert Path(folder).parent == tmp_path / "good" / "minires"
    for part in (str(tmp_path / "file"), folder, "MINIRES_CACHE_DIR"):
        assert part in message


def test_kernels_run_if_no_folder_is_writable(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code = """
import tempfile, warnings
import platformdirs
platformdirs.user_cache_dir = lambda name: FILE
tempfile.gettempdir = lambda: FILE
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from minires.kernels.runtime import jit
    from minires.kernels.compiled import backend as fast
assert jit.FOLDERS.folder is None, jit.FOLDERS
assert "every process" in str(caught[0].message), caught
import numpy as np
losses, p = fast.cross_entropy(np.zeros((2, 4), np.float32), np.zeros(2, np.int64), 0.0)
assert abs(losses[0] - np.log(4)) < 1e-6
"""
    bad = str(tmp_path / "file")
    found = python(code.replace("FILE", repr(bad)), MINIRES_CACHE_DIR=bad, NUMBA_CACHE_DIR=bad)
    assert found.returncode == 0, found.stderr


def test_importing_minires_imports_no_compiler():
    """It would cost `minires --help` half a second for nothing."""
    found = python(
        "import sys, minires; print(sorted({'numba', 'llvmlite', 'torch', 'matplotlib'} & set(sys.modules)))"
    )
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


class TestBackends:
    def test_both_have_every_function(self):
        for name in kernels.BACKENDS:
            with kernels.backend(name):
                assert all(callable(getattr(kernels, function)) for function in kernels.FUNCTIONS)
                modules = {getattr(kernels, function).__module__ for function in kernels.FUNCTIONS}
            assert all((".reference." in module) == (name == "reference") for module in modules)

    def test_switching_nests_and_is_undone_by_an_exception(self):
        with kernels.backend("reference"):
            with kernels.backend("numba"):
                assert kernels.get_backend() == "numba"
            with pytest.raises(ZeroDivisionError), kernels.backend("numba"):
                raise ZeroDivisionError
            assert kernels.get_backend() == "reference"
        assert kernels.get_backend() == "numba"

    def test_an_unknown_name_is_reported(self):
        with pytest.raises(ConfigError, match=r"'nunba' \(did you mean numba\?\).*reference"), kernels.backend("nunba"):
            pass

    def test_there_are_no_other_attributes(self):
        with pytest.raises(AttributeError, match="conv3d"):
            kernels.conv3d  # noqa: B018
