"""The differentiable operations, one file a family: each op's forward and backward side by side, then its function."""
