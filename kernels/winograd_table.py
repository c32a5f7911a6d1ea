"""How many times as fast Winograd convolutions are as direct ones: {target kind: {use: {channels: {side of the map: times}}}}.

avx2: written by ``python -m benchmarks.winograd_table --write``, one thread of an AMD EPYC (Zen 3), float32, as many filters
as channels, square maps, as few images as the rule asks for (``winograd_plan.least_tiles``): with more the gains are larger.
avx512: F(4×4, 3×3) has not been measured there. The figures are of F(2×2, 3×3), of the spike that came before these kernels,
on two threads, forward (the input gradient is the same kernel): taken as the least that F(4×4) should gain, which on AVX2
gains more than F(2×2) at these layers. The other targets have none, so that Winograd is off there.
"""

USES = "forward", "input_grad", "weight_grad"
LEAST_GAIN = 1.05  # below it, the direct kernel, which rounds less, is taken
# With fewer 4×4 tiles in a batch, transforming the weights (or clearing and adding totals) outweighs; with fewer products
# tiles × channels × filters, a call's fixed cost does. Measured at whole tiles (8×8 × 64, 16×16 × 32, 32×32 × 16, batches of 1
# to 32): from here on gains of 1.3 and more, in weight gradients 1.1 to 1.9; at half as many about 1.1.
LEAST_TILES = {"forward": 32, "input_grad": 32, "weight_grad": 128}
LEAST_PRODUCTS = 1 << 17

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
    "avx2": {
        "forward": {
            8: {4: 1.12, 7: 0.82, 8: 1.14, 14: 0.93, 16: 1.18, 28: 1.13, 32: 1.14, 56: 1.15},
            16: {4: 1.22, 7: 0.9, 8: 1.26, 14: 1.0, 16: 1.27, 28: 1.26, 32: 1.27, 56: 1.32},
            32: {4: 1.43, 7: 1.09, 8: 1.46, 14: 1.15, 16: 1.44, 28: 1.53, 32: 1.53, 56: 1.7},
            64: {4: 1.38, 7: 1.12, 8: 1.39, 14: 1.25, 16: 1.55, 28: 1.8, 32: 2.0, 56: 2.51},
            128: {4: 2.21, 7: 1.79, 8: 2.24, 14: 1.71, 16: 2.24, 28: 2.44, 32: 2.69, 56: 2.95},
            256: {4: 2.26, 7: 1.99, 8: 2.38, 14: 1.85, 16: 2.34, 28: 2.6, 32: 3.05, 56: 3.1},
            512: {4: 2.13, 7: 1.76, 8: 2.3, 14: 1.89, 16: 2.37, 28: 2.39, 32: 2.87, 56: 2.98},
        },
        "input_grad": {
            8: {4: 1.11, 7: 0.82, 8: 1.14, 14: 0.93, 16: 1.17, 28: 1.13, 32: 1.12, 56: 1.14},
            16: {4: 1.22, 7: 0.9, 8: 1.24, 14: 1.0, 16: 1.28, 28: 1.26, 32: 1.26, 56: 1.31},
            32: {4: 1.41, 7: 1.08, 8: 1.44, 14: 1.14, 16: 1.44, 28: 1.52, 32: 1.51, 56: 1.67},
            64: {4: 1.35, 7: 1.11, 8: 1.37, 14: 1.22, 16: 1.53, 28: 1.77, 32: 1.99, 56: 2.47},
            128: {4: 2.16, 7: 1.76, 8: 2.17, 14: 1.66, 16: 2.16, 28: 2.34, 32: 2.59, 56: 2.86},
            256: {4: 2.09, 7: 1.78, 8: 2.14, 14: 1.65, 16: 2.14, 28: 2.44, 32: 2.85, 56: 3.15},
            512: {4: 1.97, 7: 1.5, 8: 1.99, 14: 1.6, 16: 2.12, 28: 2.33, 32: 2.71, 56: 2.89},
        },
        "weight_grad": {
            8: {4: 1.21, 7: 0.88, 8: 1.18, 14: 1.0, 16: 1.24, 28: 1.19, 32: 1.24, 56: 1.24},
            16: {4: 1.38, 7: 1.01, 8: 1.37, 14: 1.13, 16: 1.41, 28: 1.44, 32: 1.46, 56: 1.52},
            32: {4: 1.97, 7: 1.38, 8: 1.96, 14: 1.0, 16: 1.14, 28: 1.1, 32: 1.94, 56: 1.22},
            64: {4: 1.45, 7: 1.18, 8: 1.45, 14: 1.45, 16: 1.66, 28: 1.68, 32: 1.62, 56: 1.88},
            128: {4: 2.24, 7: 1.5, 8: 1.9, 14: 1.56, 16: 2.44, 28: 2.39, 32: 2.56, 56: 2.56},
            256: {4: 2.61, 7: 2.02, 8: 2.53, 14: 2.03, 16: 2.53, 28: 2.57, 32: 2.94, 56: 2.71},
            512: {4: 3.39, 7: 1.98, 8: 2.86, 14: 2.86, 16: 3.06, 28: 2.66, 32: 2.67, 56: 2.62},
        },
    },
}
