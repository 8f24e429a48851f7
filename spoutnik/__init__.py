"""Spoutnik: the whole DeepSeek-R1 system, small enough to read and real enough to use."""

__version__ = "0.1.0"
