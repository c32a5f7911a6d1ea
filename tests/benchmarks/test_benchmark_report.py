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
        "minires is 1.20 × as fast as the fastest of PyTorch and ONNX Runtime (ONNX Runtime)",
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


def test_inference_is_compared_with_the_best_of_all(case):
    case["seconds"] |= {"OpenVINO": [[9 * MS], [9 * MS]], "ncnn": [[13 * MS], [13 * MS]]}
    lines = report.steps({"job": "inference", "cases": [case]}).splitlines()
    assert lines[0].endswith("| ONNX Runtime | OpenVINO | ncnn | against the best of them |")
    assert lines[2].endswith("| 12.0 | 9.00 | 13.0 | **0.90 ×** |")
    assert "0.90 × as fast as the fastest of PyTorch, ONNX Runtime, OpenVINO and ncnn (OpenVINO)" in lines[5]


def test_busy_tables(case):
    """Twice the time on all threads, the same on one; PyTorch's best mode is another one beside the busy process."""
    alone = {**case, "job": "train", "busy": 0, "missing": {}}
    alone["seconds"] = {"minires": [[10 * MS], [10 * MS]], "minires, 1 thread": [[16 * MS], [16 * MS]],
                        "PyTorch NCHW": [[30 * MS], [30 * MS]], "PyTorch compile": [[20 * MS], [20 * MS]]}  # fmt: skip
    both = {**alone, "busy": 1}
    both["seconds"] = {"minires": [[18 * MS], [22 * MS]], "minires, 1 thread": [[16 * MS], [16 * MS]],
                       "PyTorch NCHW": [[60 * MS], [60 * MS]], "PyTorch compile": [[80 * MS], [80 * MS]]}  # fmt: skip
    broken = {"job": "inference", "model": "resnet20", "batch": 1, "threads": 2, "failed": "minires stopped"}
    lines = report.busy({"cases": [alone, both, broken]}).splitlines()
    assert lines[2] == "| resnet20, batch 128, 2 threads, alone | **10.0** | 16.0 | 30.0 | 20.0 | **2.00 ×** |"
    title = "resnet20, batch 128, 2 threads, beside 1 busy process"
    assert lines[3] == f"| {title} | **20.0** | 16.0 | 60.0 | 80.0 | **3.00 ×** |"
    first = lines.index(
        "| time beside busy processes / time alone | minires | minires, 1 thread | PyTorch NCHW | PyTorch compile |"
    )
    assert lines[first + 2] == (
        f"| {title} | 2.00 × (1.80–2.20) | 1.00 × (1.00–1.00) | 2.00 × (2.00–2.00) | 4.00 × (4.00–4.00) |"
    )
    assert lines[-1] == "- resnet20, batch 1, 2 threads: minires stopped"
    for name in ("minires", "minires, 1 thread"):
        assert not report.is_other(name)


def test_two_trainings_are_compared_with_one_on_half_the_threads():
    seconds = {"one alone": [[20 * MS], [20 * MS]], "one alone, all threads": [[12 * MS], [12 * MS]],
               "first of two": [[22 * MS], [24 * MS]], "second of two": [[30 * MS], [30 * MS]]}  # fmt: skip
    case = {"model": "resnet20", "batch": 128, "threads": 4, "half": 2, "seconds": seconds}
    broken = {**case, "failed": "first of two stopped"}
    lines = report.two_trainings({"job": "train", "cases": [case, broken]}).splitlines()
    assert lines[0].endswith("| one alone | one alone, all threads | first of two | second of two | "
                             "first of two / alone | second of two / alone |")  # fmt: skip
    assert lines[2] == (
        "| resnet20, batch 128, 4 threads | 2 threads | 20.0 | 12.0 | 23.0 | 30.0 | 1.15 × (1.10–1.20) | 1.50 × (1.50–1.50) |"
    )
    assert lines[-1] == "- resnet20, batch 128, 4 threads: first of two stopped"


def test_a_whole_training_is_its_steps():
    small, whole = "minires, 24 × 24", "minires, 32 × 32"
    seconds = {small: [[1.0], [1.0]], whole: [[2.0, 2.0], [2.0, 9.0]], "PyTorch NCHW": [[6.0], [6.0]]}
    schedules = {
        small: {"what": "minutes20 (a net)", "steps": 200, "batch": 1024},
        whole: {"what": "minutes20 (a net)", "steps": 200, "batch": 1024},
        "PyTorch NCHW": {"what": "airbench94 with Muon", "steps": 200, "batch": 2000},
    }
    missing = {"PyTorch compile": "PyTorch compile is left out: no compiler"}
    result = {"threads": 2, "seconds": seconds, "schedules": schedules, "missing": missing}
    lines = report.recipe(result).splitlines()
    assert lines[2] == "| minires, 24 × 24 | minutes20 (a net) | 1,024 | 1.00 s × 200 | 3.3 | – |"
    assert lines[3] == "| minires, 32 × 32 | minutes20 (a net) | 1,024 | 2.00 s × 200 | 6.7 | – |"
    assert lines[4] == "| PyTorch NCHW | airbench94 with Muon | 2,000 | 6.00 s × 200 | 20.0 | **2.00 ×** |"
    assert lines[-1] == "- PyTorch compile is left out: no compiler"


def test_the_title_names_the_busy_processes(case):
    record = {"environment": {}, "result": {"job": "train", "cases": [case]}}
    assert report.section("train", record).startswith("### Training step\n")
    assert report.section("train", {**record, "busy": 1}).startswith("### Training step, beside 1 busy process\n")
    assert report.section("train", {**record, "busy": 2}).startswith("### Training step, beside 2 busy processes\n")


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
