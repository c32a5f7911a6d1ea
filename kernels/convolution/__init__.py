"""Convolutions of the ``numba`` back end: implicit im2col, directly or by the Winograd algorithm.

Read dispatch → direct → macrokernel → microkernel; prologue and epilogue are what is fused with them, winograd* the other
algorithm. A convolution is cut into items of work (work_items), for each of which the images are packed.
"""
