"""No kernel of a training step reads or writes a byte outside its arrays: beside each lies a page that nobody may touch."""

import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="pages are protected by Linux's mprotect"),
]

STEPS = '''
import ctypes, math, sys, weakref
import numpy as np
import minires as mr
import minires.kernels.compiled.backend, minires.kernels.convolution.direct
from minires import functional as F
from minires.kernels.runtime import memory_pool

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype, PAGE = ctypes.c_void_p, 4096
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
at_end = sys.argv[1] == "end"

def empty(shape, dtype):
    """An array with a page before and one behind that nobody may touch; it ends, or begins, at one of them."""
    bytes = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
    size = -(-bytes // PAGE) * PAGE
    base = libc.mmap(None, size + 2 * PAGE, 3, 0x22, -1, 0)
    assert base not in (None, ctypes.c_void_p(-1).value)
    assert libc.mprotect(base, PAGE, 0) == libc.mprotect(base + PAGE + size, PAGE, 0) == 0
    buffer = (ctypes.c_char * bytes).from_address(base + PAGE + (size - bytes if at_end else 0))
    weakref.finalize(buffer, libc.munmap, base, size + 2 * PAGE)
    return np.frombuffer(buffer, dtype, math.prod(shape)).reshape(shape)

def zeros(shape, dtype):
    array = empty(shape, dtype)
    array[...] = 0
    return array

def empty_like(x):
    if x.ndim == 4 and not x.flags.c_contiguous:
        return empty(x.transpose(0, 2, 3, 1).shape, x.dtype).transpose(0, 3, 1, 2)
    return empty(x.shape, x.dtype)

def empty_together(shapes, dtype):
    return [empty(shape, dtype) for shape in shapes]

replaced = {getattr(memory_pool, f.__name__): f for f in (empty, zeros, empty_like, empty_together)}
for name, module in list(sys.modules.items()):
    if name.startswith("minires"):
        for attribute, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") == memory_pool.__name__ and value in replaced:
                setattr(module, attribute, replaced[value])
assert minires.kernels.convolution.direct.empty is empty and mr.kernels.zeros is zeros

def guarded(array):
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy

def steps(name, images, side, **options):
    model = mr.models.create(name, num_classes=10, **options)
    for p in model.parameters():
        p.data = guarded(p.data.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1) if p.ndim == 4 else guarded(p.data)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    rng = np.random.default_rng(0)
    x = mr.tensor(guarded(rng.standard_normal((images, side, side, 3)).astype(np.float32)).transpose(0, 3, 1, 2))
    for fused in (True, False):
        with mr.fusion(fused):
            loss = F.cross_entropy(model(x), rng.integers(0, 10, images))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with mr.no_grad():
        model.eval()(x)

for winograd in (True, False):
    with mr.winograd(winograd):
        for images, side in ((32, 32), (1, 32), (7, 24)):
            steps("resnet20", images, side)
        steps("preresnet20", 5, 32)
        steps("resnet50", 1, 64)
        steps("resnext50_32x4d", 1, 64)
        steps("resnet8", 3, 32, option="B")
print("within its arrays")
'''


@pytest.mark.parametrize("where", ["end", "beginning"])
def test_every_kernel_stays_within_its_arrays(where):
    found = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", STEPS, where], capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout == "within its arrays\n"
