"""Direct against Winograd convolutions on one thread, and the table by which kernels choose between them.

python -m benchmarks.winograd_table             the shapes of ResNet-20 and ResNet-18, printed
python -m benchmarks.winograd_table --write     every class of channels and sides, printed and written, for this CPU
                                                target, into kernels/convolution/winograd_table.py, from where it is committed
"""

import argparse
import time
from pathlib import Path

import numpy as np

import minires as mr
from minires.kernels.convolution import (
    direct,
    direct_weight,
    winograd,
    winograd_plan,
    winograd_table,
    winograd_weight,
)
from minires.kernels.convolution.work_items import problem_of
from minires.kernels.descriptors import STORE, Operand
from minires.kernels.runtime import target

CHANNELS = (8, 16, 32, 64, 128, 256, 512)
SIDES = (4, 7, 8, 14, 16, 28, 32, 56)
ONE = (1, 1)
TABLE = Path(winograd_table.__file__)
NAMED = [(128, 32, 16), (128, 16, 32), (128, 8, 64), (8, 56, 64), (8, 28, 128), (8, 14, 256), (8, 7, 512)]


def calls(images, side, channels):
    """{use: (direct, Winograd)}, and the nominal FLOPs of one call."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((images, side, side, channels), np.float32) for _ in range(2))
    w = rng.standard_normal((3, 3, channels, channels), np.float32)
    problem = problem_of(x.shape, w.shape, ONE, ONE, ONE, 1)
    x, dy = Operand(x), Operand(dy)
    uses = {
        "forward": [lambda m=m: m.convolve(problem, x, w, STORE) for m in (direct, winograd)],
        "input_grad": [lambda m=m: m.convolve_input_grad(problem, dy, w, STORE) for m in (direct, winograd)],
        "weight_grad": [lambda m=m: m.convolve_weight_grad(problem, x, dy) for m in (direct_weight, winograd_weight)],
    }
    return uses, 2 * 9 * images * side * side * channels * channels


def best(functions, seconds):
    """The shortest CPU time of each, taken in turn."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for function, taken in zip(functions, times):
            start = time.thread_time()
            function()
            taken.append(time.thread_time() - start)
    return [min(taken) for taken in times]


def measure(images, side, channels, seconds, only=winograd_table.USES):
    """{use: direct time / Winograd time}; prints a row of GFLOP/s."""
    uses, flops = calls(images, side, channels)
    gains, cells = {}, []
    for use, functions in uses.items():
        if use not in only:
            cells.append("")
            continue
        slow, fast = best(functions, seconds)
        gains[use] = slow / fast
        cells.append(f"{flops / slow / 1e9:.0f} → {flops / fast / 1e9:.0f} ({slow / fast:.2f} ×)")
    print(f"| {images} × {side}×{side}, {channels} | {' | '.join(cells)} |", flush=True)
    return gains


def images_for(side, channels, use):
    """As few images as the rule asks for: with more, Winograd gains more."""
    tiles = (winograd_plan.whole(side) // winograd_plan.TILE) ** 2
    return -(-winograd_plan.least_tiles(use, channels, channels) // tiles)


def write(gains):
    """Put this target's gains into the table's source."""
    table = winograd_table.GAINS | {target.KIND: gains}
    source = TABLE.read_text(encoding="utf-8")
    lines = ["GAINS = {"]
    for kind, uses in table.items():
        lines.append(f'    "{kind}": {{')
        for use, by_channels in uses.items():
            lines.append(f'        "{use}": {{')
            lines += [f"            {channels}: {by_side}," for channels, by_side in by_channels.items()]
            lines.append("        },")
        lines.append("    },")
    before = source[: source.index("GAINS = {")]
    TABLE.write_text(before + "\n".join([*lines, "}"]) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="measure all classes and write the table")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each pair of figures (default: 0.3)")
    options = parser.parse_args()
    mr.set_num_threads(1)
    print(f"GFLOP/s on one thread, {target.KIND}: direct → Winograd\n")
    print("| images × map, channels | forward | input gradient | weight gradient |\n| --- | --- | --- | --- |")
    if not options.write:
        for case in NAMED:
            measure(*case, options.seconds)
        return
    gains = {use: {channels: {} for channels in CHANNELS} for use in winograd_table.USES}
    for channels in CHANNELS:
        for side in SIDES:
            for use in winograd_table.USES:
                images = images_for(side, channels, use)
                gains[use][channels][side] = round(measure(images, side, channels, options.seconds, (use,))[use], 2)
    write(gains)


if __name__ == "__main__":
    main()
