"""Where the Winograd algorithm is used: what it can compute, and what the committed table says."""

from pathlib import Path

import pytest

from minires.kernels.convolution import winograd_table
from minires.kernels.convolution.winograd_plan import applicable, faster, least_tiles, whole
from minires.kernels.convolution.winograd_table import GAINS, LEAST_GAIN, USES
from minires.kernels.convolution.winograd_transforms import TILE
from minires.kernels.convolution.work_items import Problem

ONE = (1, 1)


def problem(
    channels=64, filters=64, side=8, images=128, kernel=(3, 3), stride=ONE, padding=ONE, dilation=ONE, groups=1
):
    return Problem(images, (side, side), channels, filters, kernel, stride, padding, dilation, groups)


OTHERS = [
    {"kernel": (1, 1)}, {"kernel": (5, 5)}, {"stride": (2, 2)}, {"stride": (1, 2)}, {"dilation": (2, 2)},
    {"padding": (3, 1)},
]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_other_convolutions_are_computed_directly(other):
    p = problem(**other)
    assert not applicable(p)
    assert not any(faster(p, use, "avx2") for use in USES)


@pytest.mark.parametrize("use", USES)
def test_where_it_is_used(use):
    """It depends on shape and target alone: the committed figures decide."""
    for kind, uses in GAINS.items():
        for channels, by_side in uses.get(use, {}).items():
            for side, gain in by_side.items():
                larger = [g for s, g in by_side.items() if s >= side]
                tiles, filters = (whole(side) // TILE) ** 2, channels + 8
                images = -(-least_tiles(use, channels, filters) // tiles)
                p = problem(channels, filters, side, images)
                assert faster(p, use, kind) == (min(larger) >= LEAST_GAIN), (kind, channels, side, gain)
                assert not faster(p._replace(images=images - 1), use, kind)
            assert not faster(problem(min(uses[use]) - 1, channels, 64), use, kind)
    assert not faster(problem(), use, "plain")
    assert not faster(problem(), use, "neon")


@pytest.mark.parametrize("use", USES)
def test_a_group_counts_as_a_convolution_of_its_own(use):
    for side in (8, 32):
        assert faster(problem(512, 512, side, groups=8), use, "avx512") == faster(problem(side=side), use, "avx512")
    assert not faster(problem(64, 64, groups=16), use, "neon")
    assert not faster(problem(64, 64, groups=16), use, "avx512")  # of 4 channels: fewer than any that was measured


def test_the_committed_table():
    """It is complete for the targets that it was measured on: three uses, with ResNet-20's layers among the classes."""
    assert set(GAINS) == {"avx2", "avx512"}
    for kind, uses in GAINS.items():
        assert set(uses) == set(USES)
        for use in USES:
            assert {16, 32, 64} <= set(uses[use])
            for channels, side in ((16, 32), (32, 16), (64, 8)):
                assert faster(problem(channels, channels, side, 32), use, kind), (kind, use, channels)
    assert all(
        gain > 0 for uses in GAINS.values() for rows in uses.values() for row in rows.values() for gain in row.values()
    )


def test_the_benchmark_writes_the_table(tmp_path, monkeypatch):
    from benchmarks import winograd_table as script

    path = tmp_path / "winograd_table.py"
    path.write_text(Path(winograd_table.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(script, "TABLE", path)
    monkeypatch.setattr(script.target, "KIND", "neon")
    gains = {use: {16: {8: 1.5}} for use in USES}
    script.write(gains)
    written = {}
    exec(path.read_text(encoding="utf-8"), written)
    assert written["GAINS"] == GAINS | {"neon": gains}
    assert script.measure(1, 6, 8, 0.01).keys() == set(USES)
