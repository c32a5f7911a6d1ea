"""``minires doctor``"""

from collections.abc import Iterator

from .errors import Debug

LIBRARIES = ("numpy", "numba", "llvmlite", "safetensors")
FEATURES = (  # of the CPU, that are listed
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512vnni",
    "avx512bf16",
    "avx2",
    "fma",
    "f16c",
    "neon",
    "sve",
)


def doctor(debug: Debug = False) -> int:
    """Print what minires runs on, and test its kernels. Exit code 1 when a test fails."""
    from rich.text import Text

    from . import display

    console = display.console()
    for title, rows in (("versions", _versions()), ("machine", _machine())):
        console.print(Text(title, "bold"))
        console.print(display.pairs(rows), end="\n\n")

    from . import selftest

    console.print(Text("self-test", "bold"), "(fast against readable kernels, largest relative difference)")
    failed = 0
    for result in selftest.run():
        failed += not result.passed
        mark = ("  ✓ ", "green") if result.passed else ("  ✗ ", "bold red")
        console.print(Text.assemble(mark, f"{result.name:<34}", (result.note, display.DIM if result.passed else "red")))
    console.print()
    if failed:
        console.print(Text(f"{failed} of the checks failed: results on this machine cannot be trusted.", "bold red"))
        return 1
    console.print(Text("All is well.", display.GOOD))
    return 0


def _versions() -> Iterator[tuple[str, str]]:
    import platform
    from importlib.metadata import version

    from .. import __version__

    yield "minires", __version__
    yield "Python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    for name in LIBRARIES:
        yield name, version(name)


def _machine() -> Iterator[tuple[str, str]]:
    from ..kernels.runtime import cores, jit, target, threads

    features = [name for name in FEATURES if f"+{name}" in target.CPU_FEATURES.split(",")]
    lanes = target.VECTOR_BYTES // 4
    yield "CPU target", f"{target.CPU_NAME} ({target.TRIPLE})"
    yield "features", ", ".join(features) or "none that the kernels use, by name"
    yield (
        "kernels",
        f"{target.KIND}, {lanes} float32 lanes, {'fused' if target.HAS_FMA else 'separate'} multiply and add",
    )
    yield "Winograd", _winograd(target.KIND)
    quota = cores.quota()
    limit = f", with a CPU quota of {quota:.3g} cores" if quota < cores.physical_cores() else ""
    yield "threads", f"{threads.get_num_threads()} for {cores.physical_cores()} physical cores{limit}"
    folders = jit.FOLDERS
    if folders.shared is not None:
        yield "shared cache", f"{folders.shared} (read-only)"
    yield "cache folder", str(folders.folder or "none is writable: compiled in every process")


def _winograd(kind: str) -> str:
    """The numbers of channels for which the committed table selects Winograd on this target."""
    from ..kernels.convolution.winograd_plan import least_side
    from ..kernels.convolution.winograd_table import GAINS

    if kind not in GAINS:
        return f"no table for {kind}: every convolution is computed directly"
    names = {"forward": "outputs", "input_grad": "input gradients", "weight_grad": "weight gradients"}
    parts = []
    for use, name in names.items():
        measured = sorted(GAINS[kind].get(use, {}))
        chosen = [c for c in measured if least_side(use, c, kind) is not None]
        if not chosen:
            parts.append(f"no {name}")
        elif chosen == measured[-len(chosen) :]:
            parts.append(f"{name} from {chosen[0]} channels")
        else:
            parts.append(f"{name} of {', '.join(map(str, chosen))} channels")
    return f"by the table for {kind}: {', '.join(parts)}"
