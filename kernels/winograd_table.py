"""Where Winograd convolutions measure faster than direct ones. Written by ``python -m benchmarks.winograd_table``."""

# target kind -> use -> {min(channels, filters): the smallest height and width of its output from which on it is used}
LEAST_SIDE = {"avx2": {use: {16: 8, 32: 6} for use in ("forward", "input_grad", "weight_grad")}}
LEAST_TILES = {"avx2": 64}
