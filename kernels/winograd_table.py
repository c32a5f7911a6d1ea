"""How many times as fast Winograd convolutions are as direct ones: {target kind: {use: {channels: {side of the map: times}}}}.

avx2: written by ``python -m benchmarks.winograd_table --write``, one thread of an AMD EPYC (Zen 3), float32, as many filters
as channels, square maps, as few images as make LEAST_TILES tiles.
avx512: not measured with these kernels; the figures of the spike that came before them, on two threads (forward only; the
input gradient is the same kernel). The other targets have none, so that Winograd is off there.
"""

USES = "forward", "input_grad", "weight_grad"
LEAST_GAIN = 1.05  # below it, the direct kernel, which rounds less, is taken
LEAST_TILES = 128  # 2×2 tiles of outputs in the batch; the weights' transform is paid once for all

GAINS = {
    "avx512": {
        "forward": {
            16: {32: 1.14},
            32: {16: 1.04},
            64: {8: 1.69, 56: 1.45},
            128: {8: 1.57},
        },
        "input_grad": {
            16: {32: 1.14},
            32: {16: 1.04},
            64: {8: 1.69, 56: 1.45},
            128: {8: 1.57},
        },
    },
}
