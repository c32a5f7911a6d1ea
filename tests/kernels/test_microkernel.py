"""The micro-kernels' machine code: targets that cannot run here are compiled for, and the code is inspected."""

import os
import re
import subprocess
import sys

import pytest

from minires.kernels.convolution.winograd import STEPS

SCRIPT = """
import sys
import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from minires.kernels.runtime import target
kind, triple, cpu, which = sys.argv[1:]
if kind == "neon":  # Numba compiles for x86 here: pass its IR, with vectors of 16 bytes, to LLVM's Arm back end
    target.VECTOR_BYTES, (target.WIDE_ROWS, target.NARROW_ROWS) = 16, target.TILE_ROWS["neon"]
assert kind == "neon" or target.KIND == kind, target.KIND
from minires.kernels.convolution.microkernel import indirect_micro_kernel, micro_kernel
from minires.kernels.convolution.winograd import STEPS
rows = target.WIDE_ROWS

if which == "long":
    @numba.njit(no_cpython_wrapper=True)
    def tile(a, b, c, d, e, f, g, h, i, j):
        indirect_micro_kernel(np.float32, rows, 2, 0, a, b, c, d, e, f, g, h, i, j)
else:
    @numba.njit(no_cpython_wrapper=True)
    def tile(a, b, c, d, e, f):
        micro_kernel(np.float32, rows, 2, STEPS, a, b, c, d, e, f)

signature = (types.intp,) * (10 if which == "long" else 6)
tile.compile(signature)
ir = tile.inspect_llvm(signature)
if kind == "neon":
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(ir.replace(llvm.get_process_triple(), triple).replace("target datalayout", "; "))
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    print(machine.emit_assembly(module))
else:
    print(tile.inspect_asm(signature))
"""


def assembly(kind, triple="", cpu="", which="long", **environment):
    """The assembly of the tile for long sums, or of the one for short sums, which has some steps unrolled."""
    command = [sys.executable, "-c", SCRIPT, kind, triple, cpu, which]
    found = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout


def inner_loop(text, multiply_add):
    """The basic block with the most fused multiply-adds."""
    blocks = re.split(r"^\.?[\w.$]+:.*$", text, flags=re.MULTILINE)
    return max(blocks, key=lambda block: len(re.findall(multiply_add, block)))


@pytest.mark.parametrize(
    ("kind", "environment", "multiply_add", "rows", "stack"),
    [
        (
            "avx512",
            {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": ""},
            r"vfmadd\d+ps.*%zmm",
            8,
            r"\(%rsp\)",
        ),
        pytest.param(
            "avx512",
            {"NUMBA_CPU_NAME": "znver4", "NUMBA_CPU_FEATURES": ""},
            r"vfmadd\d+ps.*%zmm",
            8,
            r"\(%rsp\)",
            marks=pytest.mark.slow,
        ),
        (
            "avx2",
            {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
            r"vfmadd\d+ps.*%ymm",
            6,
            r"ymm\d+, .*\(%rsp\)",
        ),
    ],
)
def test_the_inner_loop_keeps_its_accumulators_in_registers(kind, environment, multiply_add, rows, stack):
    for which, steps in (("long", 1), ("short", STEPS)):
        loop = inner_loop(assembly(kind, which=which, **environment), multiply_add)
        assert len(re.findall(multiply_add, loop)) == 2 * rows * steps  # MR × NV, not unrolled
        assert not re.search(rf"vmovups.*{stack}", loop)  # no vector is spilled


def test_the_plain_target_multiplies_and_adds():
    """Without FMA in the target, llvm.fma would call a library function for each element."""
    text = assembly("plain", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert "mulps" in text
    assert not re.search(r"call.*fma", text)


def test_the_arm_tile_compiles_to_fused_vector_instructions():
    text = assembly("neon", "aarch64-unknown-linux-gnu", "neoverse-n1")
    loop = inner_loop(text, r"fmla\s+v\d+\.4s")
    assert len(re.findall(r"fmla\s+v\d+\.4s", loop)) == 2 * 12
