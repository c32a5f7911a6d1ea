"""Medians, ratios and tables, on given numbers."""

import pytest

from benchmarks import report

MS = 1e-3


@pytest.fixture
def case():
    """minires 10 ms, NCHW 30, channels_last 15, compile 20, ONNX 12, by medians over both rounds."""
    return {
        "model": "resnet20",
        "batch": 128,
        "threads": 2,
        "seconds": {
            "minires": [[10 * MS, 8 * MS, 10 * MS], [11 * MS, 10 * MS, 50 * MS]],
            "PyTorch NCHW": [[30 * MS], [30 * MS]],
            "PyTorch channels_last": [[16 * MS], [14 * MS]],
            "PyTorch compile": [[20 * MS], [20 * MS]],
            "ONNX Runtime": [[12 * MS], [12 * MS]],
        },
        "missing": {"JAX": "JAX is left out: No module named 'jax'"},
    }


def test_ratio_is_of_medians_over_all_rounds(case):
    assert report.typical(case, "minires") == pytest.approx(10 * MS)  # neither the fastest nor the mean
    assert report.ratio(case, "PyTorch channels_last") == pytest.approx(1.5)
    assert report.spread(case, "PyTorch channels_last") == pytest.approx((14 / 11, 16 / 10))


def test_the_best_mode_is_the_anchor(case):
    assert report.rivals(case) == ["PyTorch channels_last", "PyTorch compile", "PyTorch NCHW"]
    assert list(report.conclusions(case)) == [
        "minires is 1.50 × as fast as PyTorch's best mode (channels_last; by round 1.27–1.60), "
        "3.00 × as fast as its slowest (NCHW)",
        "minires is 1.20 × as fast as the better of PyTorch and ONNX Runtime (ONNX Runtime)",
        "JAX is left out: No module named 'jax'",
    ]


def test_steps_table(case):
    small = {
        **case,
        "batch": 1,
        "threads": 1,
        "seconds": {"minires": [[0.2]], "PyTorch compile": [[0.1]]},
        "missing": {},
    }
    gone = {"model": "resnet56", "batch": 4, "threads": 2, "failed": "minires stopped with exit code 1: why"}
    lines = report.steps({"job": "train", "cases": [case, small, gone]}).splitlines()
    assert lines[0] == (
        "| training step, ms (medians) | minires | PyTorch NCHW | PyTorch channels_last | PyTorch compile | "
        "ONNX Runtime | against PyTorch's best |"
    )
    assert lines[1] == "| --- | --- | --- | --- | --- | --- | --- |"
    assert lines[2] == "| resnet20, batch 128, 2 threads | **10.0** | 30.0 | 15.0 | 20.0 | 12.0 | **1.50 ×** |"
    assert lines[3] == "| resnet20, batch 1, 1 thread | **200** | – | – | 100 | – | **0.50 ×** |"
    assert lines[-1] == "- resnet56, batch 4, 2 threads: minires stopped with exit code 1: why"


def test_what_both_were_held_to_is_said(case):
    case["targets"] = {"minires": "avx2 (haswell)", "PyTorch NCHW": "AVX2", "PyTorch compile": "AVX2"}
    held = {"minires": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, "PyTorch": {"A": "avx2"}}
    lines = report.steps({"job": "train", "environment": held, "cases": [case]}).splitlines()
    assert lines[-2:] == [
        "- minires: `NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=`, which makes it avx2 (haswell)",
        "- PyTorch: `A=avx2`, which makes it AVX2",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.001234, "1.23"), (0.01234, "12.3"), (0.1234, "123"), (1.2345, "1234"), (0.0001234, "0.12")],
)
def test_milliseconds(seconds, text):
    assert report.milliseconds(seconds) == text


def test_scaling_compares_with_one_thread(case):
    one = {**case, "threads": 1, "seconds": {"minires": [[18 * MS]], "PyTorch compile": [[24 * MS]]}}
    lines = report.scaling({"cases": [one, case]}).splitlines()
    assert lines[2] == "| resnet20, batch 128, 1 thread | 18.0 | 1.00 × | 24.0 (compile) | 1.00 × | 1.33 × |"
    assert lines[3] == "| resnet20, batch 128, 2 threads | 10.0 | 1.80 × | 15.0 (channels_last) | 1.60 × | 1.50 × |"


def kernels_result():
    def row(conv, use, ours, nchw):
        seconds = {"minires": [[ours]], "PyTorch NCHW": [[nchw]], "PyTorch channels_last": [[2 * nchw]]}
        return {"conv": conv, "use": use, "flops": 1e9, "bytes": 1e7, "seconds": seconds}

    rows = [row("a", "forward", 0.01, 0.02), row("a", "weight gradient", 0.02, 0.01), row("b", "forward", 0.01, 0.01)]
    return {"threads": 2, "limits": {"gflops": 200.0, "bandwidth": 10.0}, "rows": rows, "missing": {}}


def test_kernels_table():
    lines = report.kernels(kernels_result()).splitlines()
    assert "200 GFLOP/s of fused multiply-adds, 10.0 GB/s" in lines[0]
    assert lines[2] == "| convolution | forward | input gradient | weight gradient |"
    assert lines[4] == "| a | 100 · 50 % · 2.00 × | – | 50 · 25 % · 0.50 × |"
    assert lines[5] == "| b | 100 · 50 % · 1.00 × | – | – |"


def test_memory_compares_with_the_leanest_mode():
    def peer(before, peak):
        return {"before": before * 2**20, "peak": peak * 2**20, "after": peak * 2**20}

    result = {
        "model": "resnet20",
        "batch": 128,
        "peers": {"minires": peer(100, 400), "PyTorch NCHW": peer(200, 800), "PyTorch compile": peer(200, 700)},
        "missing": {},
        "long": {"model": "resnet20", "batch": 32, "steps": 1000, "every": 50, "resident": [2**20, 3 * 2**20, 2**21]},
    }
    text = report.memory(result)
    assert "| minires | 100 | 400 | 300 | 1.00 × |" in text
    assert "| PyTorch NCHW | 200 | 800 | 600 | 0.50 × |" in text
    assert "minires takes 0.60 × the memory of PyTorch's leanest mode (compile)" in text
    assert "1,000 steps (resnet20, batch 32): resident 1 MB after the first 50, 2 MB at the end, 3 MB at most" in text


def test_startup_table():
    text = report.startup({"rows": {"import minires": [0.3, 0.2, 0.7]}})
    assert text.splitlines()[-1] == "| import minires | 0.30 | 0.20 | 3 |"


def test_the_document_names_an_environment_once(case):
    def record(cpu):
        return {"environment": {"CPU": cpu}, "result": {"job": "train", "cases": [case]}}

    records = {"one-thread": record("B"), "avx2": record("A"), "train": record("A")}
    text = report.document({**records, "startup": {"environment": {"CPU": "B"}, "failed": "it broke"}})
    headings = [line for line in text.splitlines() if line.startswith(("###", "- CPU"))]
    assert headings == [
        "- CPU: A",
        "### Training step",
        "### Training step, both held to AVX2",
        "- CPU: B",
        "### Training step on one thread",
        "### Beginning",
    ]
    assert text.endswith("it broke")


def test_roofline_picture(tmp_path):
    roofline = pytest.importorskip("benchmarks.roofline")
    path = tmp_path / "roofline.png"
    roofline.draw(kernels_result(), path)
    assert path.read_bytes().startswith(b"\x89PNG")
