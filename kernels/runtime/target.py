"""The CPU target that Numba compiles for: its vector width and register-tile shapes.

Read from Numba's settings (``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES``), not from the CPU, so that other targets can be tested:
``NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=`` is AVX2 and ``NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES=`` the plain target.
"""

from numba.core.registry import cpu_target

# A CPU name alone implies its features when no feature list is given (an empty NUMBA_CPU_FEATURES).
_AVX512_NAMES: tuple[str, ...] = (
    "skylake-avx512",
    "cascadelake",
    "cooperlake",
    "icelake",
    "tigerlake",
    "rocketlake",
    "sapphirerapids",
)
_AVX512_NAMES += ("emeraldrapids", "graniterapids", "znver4", "znver5", "x86-64-v4")
_AVX2_NAMES = ("haswell", "broadwell", "skylake", "alderlake", "raptorlake", "znver1", "znver2", "znver3", "x86-64-v3")


TRIPLE, CPU_NAME, CPU_FEATURES = cpu_target.target_context.codegen().magic_tuple()


def _kind():
    features = set(CPU_FEATURES.split(","))
    name, arch = CPU_NAME, TRIPLE.split("-")[0]
    if arch in ("aarch64", "arm64"):
        return "neon"
    if features == {""}:
        avx512, avx2 = name.startswith(_AVX512_NAMES), name.startswith(_AVX2_NAMES)
    else:
        avx512, avx2 = "+avx512f" in features, "+avx2" in features and "+fma" in features
    if arch in ("x86_64", "i686") and avx512:
        return "avx512"
    return "avx2" if arch in ("x86_64", "i686") and avx2 else "plain"


KIND = _kind()
HAS_FMA = KIND != "plain"  # otherwise llvm.fma would be a library call, and a multiply and an add are emitted instead
VECTOR_BYTES = {"avx512": 64, "avx2": 32, "neon": 16, "plain": 16}[KIND]

# Rows of the register tiles that are two vectors wide (many output channels) and one vector wide (few).
# The accumulators, the vectors of B and one broadcast must fit in the registers: 32 on AVX-512 and NEON, 16 on the others.
# On AVX-512, 8 rows of two vectors reached 116 GFLOP/s of 117 on Zen 4, with sums over 32 channels, and 12 rows 110. Also,
# 8 divides the usual numbers of channels and pixels.
TILE_ROWS = {"avx512": (8, 16), "avx2": (6, 12), "neon": (12, 16), "plain": (4, 8)}
WIDE_ROWS, NARROW_ROWS = TILE_ROWS[KIND]


def tile_columns(columns, itemsize):
    """Width of the register tile for a product with ``columns`` columns: one vector if they fit into it, else two."""
    lanes = VECTOR_BYTES // itemsize
    return lanes if columns <= lanes else 2 * lanes
