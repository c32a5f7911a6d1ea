"""minires against its peers, side by side in one run: ``python -m benchmarks.train_step``, ``python -m benchmarks.startup``."""
