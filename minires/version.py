"""The version, which setup.cfg has too."""

__version__ = "0.1.0"
