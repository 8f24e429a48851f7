"""Spoutnik: the whole DeepSeek-R1 system, small enough to read and real enough to use."""

__version__ = "0.1.0"
__all__ = ["LLM", "Chat", "SamplingParams", "load"]
_WHERE = {"LLM": "spoutnik.engine.llm", "Chat": "spoutnik.generation.chat", "SamplingParams": "spoutnik.engine.sampling_params",
          "load": "spoutnik.loading"}


def __getattr__(name: str):
    """`spoutnik.load` and the others without importing torch for those who only want the version."""
    if name in _WHERE:
        from importlib import import_module
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'spoutnik' has no attribute {name!r}")
