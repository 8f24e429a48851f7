"""A byte-level BPE tokenizer (the `tokenizers` library does the work) and the chat template stored beside it."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib import resources
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BPE

from spoutnik.errors import RunError, UserError
from spoutnik.files import write_json, write_text

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
SPECIAL_TOKENS = (BOS, EOS, USER, ASSISTANT, THINK, END_THINK)  # ids 0..5: bos and eos as in V3's config.json

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


class Tokenizer:
    """Text to ids and back. The special tokens of the text are recognised only in rendered conversations: a user who
    types `<think>` types seven characters."""

    def __init__(self, bpe: BPE, chat_template: str):
        self.bpe = bpe
        self.chat_template = chat_template
        self.bos_id, self.eos_id, self.user_id, self.assistant_id, self.think_id, self.end_think_id = (
            bpe.token_to_id(token) for token in SPECIAL_TOKENS)
        if self.end_think_id is None:
            raise RunError(f"tokenizer.json: lacks one of {', '.join(SPECIAL_TOKENS)}. "
                           "Use a tokenizer trained by Spoutnik, or that of DeepSeek-R1.")

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Byte-level BPE on `texts`; digits are split one by one, so that arithmetic is the same at every length.

        The space before a number stays with its first digit: one token less per number.
        """
        bpe = BPE(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False)])
        bpe.decoder = decoders.ByteLevel()
        bpe.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        return Tokenizer(bpe, resources.files("spoutnik.text").joinpath("chat_template.jinja").read_text("utf-8"))

    @staticmethod
    def load(folder: Path) -> "Tokenizer":
        path = Path(folder) / "tokenizer.json"
        template = Path(folder) / "chat_template.jinja"
        for needed in (path, template):
            if not needed.exists():
                raise RunError(f"{needed}: not found. The checkpoint is incomplete: restore it or run its stage again.")
        try:
            bpe = BPE.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every malformed file
            raise RunError(f"{path}: is not a tokenizer ({error}). Restore it, or run its stage again.") from error
        return Tokenizer(bpe, template.read_text("utf-8"))

    def save(self, folder: Path) -> None:
        write_text(Path(folder) / "tokenizer.json", self.bpe.to_str(pretty=False))
        write_text(Path(folder) / "chat_template.jinja", self.chat_template)
        write_json(Path(folder) / "tokenizer_config.json", {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS,
            "clean_up_tokenization_spaces": False})

    @property
    def vocab_size(self) -> int:
        return self.bpe.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; anything that looks like a special token is spelled out."""
        return [i for part in _split_specials(text) for i in self.bpe.encode(part, add_special_tokens=False).ids]

    def decode(self, ids: list[int], keep_special: bool = False) -> str:
        return self.bpe.decode(ids, skip_special_tokens=not keep_special)

    @cached_property
    def _template(self):
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(self.chat_template)

    def render(self, messages: list[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as one string with its special tokens, through the checkpoint's jinja template."""
        return self._template.render(messages=messages, bos_token=BOS, add_generation_prompt=add_generation_prompt)

    def chat_ids(self, messages: list[Message]) -> list[int]:
        """Prompt ids of a conversation, up to and including the opened thought.

        Contents are rendered through placeholders and encoded apart, so that no text of a user becomes a special token.
        """
        unknown = [m["role"] for m in messages if m["role"] not in ("system", "user", "assistant")]
        if unknown:
            raise UserError(f"role = {unknown[0]!r}: a message is of the system, the user or the assistant.")
        marks = [f"\ue000{i}\ue001" for i in range(len(messages))]
        masked = [{"role": m["role"], "content": mark} for m, mark in zip(messages, marks)]
        rest, ids = self.render(masked), []
        for message, mark in zip(messages, marks):
            frame, _, rest = rest.partition(mark)
            content = message["content"]
            if message["role"] == "assistant" and END_THINK in content:  # past thoughts are dropped, as by the template
                content = content.split(END_THINK)[-1].lstrip()
            ids += self._encode_frame(frame) + self.encode(content)
        return ids + self._encode_frame(rest)

    def _encode_frame(self, text: str) -> list[int]:
        return self.bpe.encode(text, add_special_tokens=False).ids

    @cached_property
    def end_thought_ids(self) -> list[int]:
        return self._encode_frame(f"\n{END_THINK}\n\n")

    def completion_ids(self, thought: str, answer: str) -> list[int]:
        """What the assistant writes after `<think>\\n`: thought, end of thought, answer, end of sentence."""
        return self.encode(thought) + self.end_thought_ids + self.encode(answer) + [self.eos_id]


def _split_specials(text: str) -> Iterator[str]:
    """Cuts `text` inside each special token it spells, so that BPE cannot see one."""
    start = 0
    for position in range(len(text)):
        if any(text.startswith(token, position) for token in SPECIAL_TOKENS):
            yield text[start:position + 1]
            start = position + 1
    if start < len(text):
        yield text[start:]
