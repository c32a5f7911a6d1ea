"""Convolutions of the ``numba`` back end: direct (implicit im2col) or by the Winograd algorithm.

Read dispatch → direct → macrokernel → microkernel. prologue and epilogue contain the fused operations, winograd* the other
algorithm. A convolution is divided into work items (work_items); images are packed one item at a time.
"""
