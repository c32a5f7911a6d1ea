"""The ``numba`` back end, file by file the twin of ``reference/``; its convolutions are in ``convolution/``."""
