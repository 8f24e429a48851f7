"""Makes the small models of this folder, and expected.jsonl: what sentencepiece itself (0.2.3) makes of hostile texts by them.

    python make.py      # needs `pip install sentencepiece`, which the tests do not
"""

import io
import json
import os
import random
from pathlib import Path

import sentencepiece

HERE = Path(__file__).parent
TEXTS = [
    "The model reads a prompt, the model thinks, and then the model writes an answer.", "the then them there these other",
    "def f(x):\n    return x + 1  # the sum", "Il était une fois un élève : « où est-il ? »", "1 22 333 4444 55555 1234567",
    "aaaaaaaa bbbb aaaa aa aaa", "==== ---- ====", "日本語のテキスト 中文和漢字 日本語 中文", "Привет, мир! Как дела?",
    "naïve café, ﬁne ½ x², the fine café"] * 8
RULES = {"ﬁ": "fi", "½": "1/2", "e\u0301": "é", "\t": " ", "\u00a0": " ", "\u3000": " ", "É": "é", "\u200b": ""}
AS_IT_IS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
MODELS = {
    "llama": AS_IT_IS | {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True, "split_digits": True,
                         "allow_whitespace_only_pieces": True},
    "gemma": AS_IT_IS | {"model_type": "bpe", "vocab_size": 420, "byte_fallback": True, "split_digits": True,
                         "allow_whitespace_only_pieces": True, "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2,
                         "unk_id": 3, "user_defined_symbols": ["<start>", "<end>", "\n", "\n\n", "▁▁", "▁▁▁▁", "<b>"]},
    "bpe_rules": {"model_type": "bpe", "vocab_size": 200, "control_symbols": ["<ctl>"], "user_defined_symbols": ["<sep>"]},
    "unigram_rules": {"model_type": "unigram", "vocab_size": 200, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "unigram_bytes": AS_IT_IS | {"model_type": "unigram", "vocab_size": 420, "byte_fallback": True,
                                 "split_by_whitespace": False, "user_defined_symbols": ["\n", "▁▁"]},
    "unigram_bare": {"model_type": "unigram", "vocab_size": 180, "add_dummy_prefix": False,
                     "normalization_rule_name": "identity"}}
PARTS = [" ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\r\n", "▁", "▁▁", " ▁", "a", "aa", "aaaaa", "the", " the", "model",
         "écrit", "É", "e\u0301", "ﬁ", "½", "\u00a0", "\u3000", "\u200b", "\ufeff", "日本", "中文和", "мир", "👩‍👧",
         "\U0001F600", "한국", "ﷺ", "x²", "1", "22", "1234567", "==", "--", "<0x41>", "<0xE9>", "<", "0x", ">", "s>", "</",
         "\x00", "\x7f", "\u0085", "\u2028", "\ufffd", "def f(x):\n    return"]


def hostile(count: int) -> list[str]:
    draw = random.Random(3)
    fixed = ["", " ", "   ", " a", "a ", "  a  b  ", "▁", "▁a▁", "\n", "<0x41>", "a<0x0A>b", "\n<0x41>\n", "a model", "a" * 15]
    return fixed + ["".join(draw.choice(PARTS) for _ in range(draw.randrange(1, 9))) for _ in range(count - len(fixed))]


def main() -> None:
    os.chdir(HERE)  # a model keeps the path of its rules
    rules = Path("rules.tsv")
    rules.write_text("".join(f"{' '.join(f'{ord(c):X}' for c in old)}\t{' '.join(f'{ord(c):X}' for c in new)}\n"
                             for old, new in RULES.items()), "utf-8")
    expected, texts = {}, hostile(90)
    for name, options in MODELS.items():
        file = io.BytesIO()
        if "normalization_rule_name" not in options:
            options = options | {"normalization_rule_tsv": str(rules)}
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS), model_writer=file, minloglevel=2, num_threads=1,
                                                 hard_vocab_limit=False, **options)
        Path(f"{name}.model").write_bytes(file.getvalue())
        model = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
        expected[name] = [(ids := model.encode(text), model.decode(ids)) for text in texts]
    rules.unlink()
    lines = [json.dumps([text, {name: rows[i] for name, rows in expected.items()}], separators=(",", ":"))
             for i, text in enumerate(texts)]
    Path("expected.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
