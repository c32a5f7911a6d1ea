"""A reader of pickles that admits NumPy arrays and plain containers, and runs nothing: for CIFAR and for weights."""
