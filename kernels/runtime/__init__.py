"""What compiled kernels run on: the CPU target, the compiler and its cache, threads and memory."""
