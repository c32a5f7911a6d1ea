"""The ``numba`` back end, file by file the counterpart of ``reference/``. Its convolutions are in ``convolution/``."""
