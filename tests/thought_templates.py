"""Chat templates of every kind of thought, over small tokenizers: for tests of what one rule makes of each."""

from dataclasses import dataclass
from pathlib import Path

import plain_marks

from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer


def _chatml(reply: str, opening: str = "") -> str:
    """A template of ChatML's turns. reply: of the assistant; opening: after the generation prompt; both jinja."""
    return ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% set t = m.reasoning_content or '' %}"
            "{% if m.role == 'assistant' %}" + reply + "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}" + opening + "{% endif %}")


# Qwen3 writes its thoughts itself, and an empty one where there was none; thinking switched off, the prompt has that.
QWEN3 = _chatml("{{ '<think>\\n' + t.strip('\\n') + '\\n</think>\\n\\n' + m.content }}",
                "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}")
QWEN3_THINKING = _chatml("{{ '<think>\\n' + t + '\\n</think>\\n\\n' + m.content }}", "{{ '<think>\\n' }}")
GLM = _chatml("{{ '\\n<think>' + t.strip() + '</think>\\n' + m.content }}")
# DeepSeek-V3.1: the thought is closed before it has begun, unless one asks for it; the marks touch what they enclose.
V31 = _chatml("{{ '</think>' + m.content }}", "{{ '<think>' if thinking is defined and thinking else '</think>' }}")
CHATML = _chatml("{{ m.content }}")


@dataclass(frozen=True)
class Expected:
    """opened_by; a completion with a thought T and an answer A; one without a thought; the end of the turn."""

    opened_by: str
    with_thought: str
    without: str
    end: str = "<|im_end|>"


def expected(shapes: dict[str, Tokenizer]) -> dict[str, tuple[Tokenizer, Expected]]:
    """shapes: the tokenizers of tests/text/conftest.py by name."""
    lines = "T\n</think>\n\nA"
    qwen3, chatml = shapes["qwen3"], shapes["chatml"]
    return {
        "nano": (shapes["nano"], Expected("prompt", lines, "\n</think>\n\nA", "<｜end▁of▁sentence｜>")),
        "r1": (shapes["r1"], Expected("prompt", lines, "\n</think>\n\nA", "<｜end▁of▁sentence｜>")),
        "qwen3": (with_template(qwen3, QWEN3), Expected("model", "<think>\n" + lines, "<think>\n\n</think>\n\nA")),
        "qwen3_first": (qwen3, Expected("model", "<think>\n" + lines, "A")),
        "qwen3_thinking": (with_template(qwen3, QWEN3_THINKING), Expected("prompt", lines, "\n</think>\n\nA")),
        "glm": (with_template(qwen3, GLM), Expected("model", "\n<think>T</think>\nA", "\n<think></think>\nA")),
        "v31": (with_template(qwen3, V31), Expected("prompt", "T</think>A", "</think>A")),
        "chatml_with_marks": (with_template(qwen3, CHATML), Expected("model", "<think>\n" + lines, "A")),
        "chatml": (chatml, Expected("nobody", "<think>\n" + lines, "A")),
        "llama3": (shapes["llama3"], Expected("nobody", "<think>\n" + lines, "A", "<|eot_id|>")),
        "plain_opening": (plain_marks.tokenizer(), Expected("prompt", lines, "\n</think>\n\nA")),
        "plain_chatml": (plain_marks.tokenizer(plain_marks.CHATML), Expected("nobody", "<think>\n" + lines, "A")),
        "roles_in_words": (plain_marks.tokenizer(plain_marks.ROLES_IN_WORDS), Expected("nobody", "<think>\n" + lines, "A")),
    }


def with_template(tokenizer: Tokenizer, template: str, **config: str) -> Tokenizer:
    ends = [] if config else tokenizer.eos_ids
    return Tokenizer(tokenizer.bpe, ChatTemplates({"default": template}, "test"), tokenizer.config | config, ends)


def published(folder: Path, tokenizer: Tokenizer) -> dict[str, Tokenizer]:
    """The published templates that lie in a folder, over a tokenizer that has their special tokens."""
    return {path.stem: with_template(tokenizer, path.read_text("utf-8")) for path in sorted(folder.glob("*.jinja"))}
