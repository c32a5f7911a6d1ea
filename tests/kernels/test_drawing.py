"""The renderer of the built-in data set: its bits do not depend on threads, image count, compiler or machine."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from minires import kernels
from minires.errors import DtypeError, ShapeError
from minires.kernels.compiled import drawing as shapes
from minires.kernels.keyed_random import key_of

SCRIPT = """
import hashlib, sys
import numba
import numpy as np
numba.config.DISABLE_JIT = "interpreted" in sys.argv
from minires.kernels.compiled import drawing as shapes
from minires.kernels.keyed_random import key_of
images = np.empty((int(sys.argv[1]), 32, 32, 3), np.uint8)
with np.errstate(over="ignore"):  # uint64 wraps on purpose; without the compiler, NumPy scalars warn about it
    shapes.draw_shapes(images, np.arange(len(images)) % 10, key_of("shapes", 0, 0))
print(hashlib.sha256(images).hexdigest()[:16])
"""


def draw(count, seed=0):
    images = np.empty((count, 32, 32, 3), np.uint8)
    shapes.draw_shapes(images, np.arange(count) % 10, key_of("shapes", seed, 0))
    return images


def digest(images):
    return hashlib.sha256(images).hexdigest()[:16]


def digest_elsewhere(count, *how, **environment):
    """The digest of what another process draws with these environment variables. how: "interpreted" for no compiler."""
    command = [sys.executable, "-c", SCRIPT, str(count), *how]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_known_digest():
    """The data set that everybody has. If you change a drawing, update this digest and say so in the change log."""
    assert digest(draw(200)) == "51853627c8426aa0"


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_any_number_of_threads_draws_the_same(threads):
    assert digest_elsewhere(203, NUMBA_NUM_THREADS=str(threads)) == digest(draw(203))


def test_the_same_without_the_compiler():
    """Plain Python and NumPy are the kernel's reference."""
    assert digest_elsewhere(10, "interpreted") == digest(draw(10))


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["haswell", "generic"])
def test_the_same_on_another_target(cpu):
    assert digest_elsewhere(200, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="") == digest(draw(200))


def test_images_do_not_depend_on_how_many_are_drawn():
    np.testing.assert_array_equal(draw(100)[:30], draw(30))


def test_all_images_differ():
    images = draw(500)
    assert len({image.tobytes() for image in images}) == 500
    assert not np.array_equal(images, draw(500, seed=1))


def test_drawings_of_one_key_differ_only_by_their_label():
    """Background and clutter are drawn first and do not depend on the label."""
    images = np.empty((2, 32, 32, 3), np.uint8)
    shapes.draw_shapes(images[:1], np.array([0]), key_of("shapes", 0, 0))
    shapes.draw_shapes(images[1:], np.array([2]), key_of("shapes", 0, 0))
    same = (images[0] == images[1]).all(axis=-1).mean()
    assert 0.3 < same < 0.99


def test_it_compiles_once():
    draw(10)
    draw(20)
    assert len(shapes._draw_all.signatures) == 1


def test_wrong_arrays_are_refused():
    images, key = np.empty((4, 32, 32, 3), np.uint8), key_of("shapes", 0, 0)
    with pytest.raises(ShapeError, match="3 labels"):
        shapes.draw_shapes(images, np.zeros(3, np.int64), key)
    with pytest.raises(DtypeError, match="int32"):
        shapes.draw_shapes(images, np.zeros(4, np.int32), key)


def test_importing_the_kernels_does_not_import_numba():
    code = "import sys; import minires.data; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert kernels.get_backend() == "numba"
