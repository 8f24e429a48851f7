"""Spoutnik: the whole DeepSeek-R1 system, small enough to read and real enough to use."""

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str):
    """`spoutnik.load` without importing torch for those who only want the version."""
    if name == "load":
        from spoutnik.loading import load
        return load
    raise AttributeError(f"module 'spoutnik' has no attribute {name!r}")
