"""The tokenizer: a `tokenizer.json` (by the `tokenizers` library) and the chat template beside it."""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from importlib import resources
from itertools import takewhile
from operator import itemgetter
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as BPE

from spoutnik.errors import RunError, UserError
from spoutnik.files import LFS_POINTER, is_lfs_pointer, read_json, write_json, write_text
from spoutnik.model.checkpoint import GGUF
from spoutnik.text.chat_template import (
    ChatTemplates,
    Conversation,
    Message,
    TemplateRefusal,
    Tool,
    refuse_half_characters,
)
from spoutnik.text.prefix_space import as_its_class_says, decoder_kinds, without_prefix_space
from spoutnik.text.sentencepiece_tokenizer import find_sentencepiece, read_sentencepiece_tokenizer
from spoutnik.text.special_token_escape import END_THINK, THINK, SpecialTokens, cut_at, unused_mark
from spoutnik.text.thought_marks import ThoughtMarks
from spoutnik.text.tiktoken_file import find_ranks, read_tiktoken
from spoutnik.text.vocabulary import tokens_needed, without_tokens_beyond

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
SPECIAL_TOKENS = (BOS, EOS, USER, ASSISTANT, THINK, END_THINK)  # ids 0..5: bos and eos as in V3's config.json
# The names under which tokenizer_config.json gives special tokens and templates read them.
TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
OWN_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS,
              "add_bos_token": True, "clean_up_tokenization_spaces": False}


SHORT_TEXT = 2000  # characters, or tokens


class TextTooLong(UserError):
    """More characters than a limit of tokens can hold."""


class Tokenizer:
    """A tokenizer with its special tokens and chat templates. Special tokens are recognized only where a template wrote them.

    bos_id: None where the model has none. eos_ids: the tokens that end a reply; eos_id: the first of them.
    marks: between which thoughts stand. think_id, end_think_id, user_id, assistant_id: None where the vocabulary has no single
        token for them.
    config: the contents of tokenizer_config.json, kept for `save`.
    """

    def __init__(self, bpe: BPE, templates: ChatTemplates, config: dict, eos_ids: Sequence[int] = ()):
        self.bpe, self.templates, self.config = bpe, templates, config
        self.special_tokens = {name: text for name in TOKEN_NAMES if (text := _token_text(config.get(name))) is not None}
        self.bos_id, eos_id = (self._id_of(name) for name in ("bos_token", "eos_token"))
        self.eos_ids = list(dict.fromkeys([*([] if eos_id is None else [eos_id]), *eos_ids]))
        if not self.eos_ids:
            raise RunError("tokenizer_config.json: names no eos_token, and generation_config.json no eos_token_id: nothing "
                           "would end a reply. Add the key eos_token.")
        self.eos_id = self.eos_ids[0]
        self.marks = ThoughtMarks.of(config, self.chat_template)
        self.user_id, self.assistant_id, self.think_id, self.end_think_id = (
            bpe.token_to_id(token) for token in (USER, ASSISTANT, self.marks.start, self.marks.end))

    def _id_of(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        token_id = None if token is None else self.bpe.token_to_id(token)
        if token is not None and token_id is None:
            raise RunError(f"tokenizer_config.json: {name} = {token!r} is not in the vocabulary of tokenizer.json. "
                           "The two files belong to different models: restore them.")
        return token_id

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Byte-level BPE on `texts`. Each digit is a token, so that arithmetic is the same at every length; the space before a
        number belongs to its first digit."""
        bpe = BPE(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False)])
        bpe.decoder = decoders.ByteLevel()
        bpe.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        bpe.post_processor = processors.TemplateProcessing(  # so that transformers, too, begins a text as documents began
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bpe.token_to_id(BOS))])
        return Tokenizer(bpe, ChatTemplates({"default": _own_template()}, "chat_template.jinja"), dict(OWN_CONFIG))

    @staticmethod
    def load(folder: Path) -> "Tokenizer":
        """The tokenizer of a folder in Hugging Face layout. Code in it (`auto_map`) is never run.

        Raises:
            RunError: a file is missing or damaged, or a token that it names is not in the vocabulary.
        """
        folder = Path(folder)
        config, generation = _object(folder / "tokenizer_config.json"), _object(folder / "generation_config.json")
        model, tokens = _object(folder / "config.json"), _object(folder / "special_tokens_map.json")
        eos_ids = _ids(generation.get("eos_token_id", model.get("eos_token_id")))
        bpe = _read_bpe(folder, config, model)
        for name in TOKEN_NAMES:
            if name in config:  # null means none, whatever the other files say
                continue
            ids = _ids(generation.get(name + "_id", model.get(name + "_id")))
            text = _token_text(tokens.get(name)) or (bpe.id_to_token(ids[0]) if ids else None)
            if text is not None:
                config[name] = text
        if isinstance(vocab_size := model.get("vocab_size"), int):
            bpe, removed = without_tokens_beyond(bpe, vocab_size, folder / "tokenizer.json")
            config |= {name: None for name in TOKEN_NAMES if _token_text(config.get(name)) in removed}
            eos_ids = [i for i in eos_ids if i < vocab_size]
        templates = ChatTemplates.load(folder, config)
        try:
            return Tokenizer(bpe, templates, config, eos_ids)
        except RunError as error:
            raise RunError(f"{folder}/{error}") from error

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json, the chat templates and tokenizer_config.json."""
        write_text(Path(folder) / "tokenizer.json", self.bpe.to_str(pretty=False))
        self.templates.save(Path(folder))
        write_json(Path(folder) / "tokenizer_config.json",
                   {key: value for key, value in self.config.items() if key != "chat_template"})

    @property
    def vocab_size(self) -> int:
        return self.bpe.get_vocab_size()

    @cached_property
    def start_ids(self) -> list[int]:
        """Ids that belong before plain text. A beginning of sentence that is merely defined does not: it must be put there by
        the post-processor of tokenizer.json, or by `add_bos_token` of tokenizer_config.json, which has the last word (the
        published DeepSeek models say it only there; transformers 5 reads the post-processor alone)."""
        ids = _ids_before_text(self.bpe)
        stated = self.config.get("add_bos_token")
        if stated is None and [self.bpe.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS))):
            stated = True  # our first models' files do not say how their documents began
        if stated is False:
            return [i for i in ids if i != self.bos_id]
        return [self.bos_id, *ids] if stated is True and self.bos_id is not None and self.bos_id not in ids else ids

    @property
    def states_start(self) -> bool:
        """Whether the post-processor puts `start_ids` before a text, and `add_bos_token` does not contradict it."""
        stated = self.config.get("add_bos_token", self.bos_id in self.start_ids)
        return _ids_before_text(self.bpe) == self.start_ids and bool(stated) == (self.bos_id in self.start_ids)

    @property
    def chat_template(self) -> str | None:
        """The source of the template used without tools; None for base models."""
        return self.templates.sources.get("default")

    @cached_property
    def _added_tokens(self) -> SpecialTokens:
        return SpecialTokens((token.content for token in self.bpe.get_added_tokens_decoder().values()),
                             self.marks.pair)

    def encode(self, text: str, max_tokens: int | None = None, continues: bool = False) -> list[int]:
        """Ids of plain text; spelled special tokens are encoded as text. max_tokens: see `check_length`. continues: the text
        goes on with another, so that no space is put before its first word."""
        self.check_length([text], max_tokens)
        return self._encode_pieces(self._added_tokens.pieces(text), continues)

    def _encode_pieces(self, pieces: Iterable[str], continues: bool = False) -> list[int]:
        """Ids of one text in pieces, over whose borders no special token is read."""
        return [i for number, piece in enumerate(pieces) for i in self.encode_rendered(piece, continues or number > 0)]

    def spelled_special(self, text: str) -> str | None:
        """The first special token that a text spells."""
        return self._added_tokens.first(text)

    def prompt_ids(self, text: str, parse_special: bool = False, start: bool = True) -> tuple[list[int], int]:
        """Ids of a raw prompt, and how many of them were put before it.

        parse_special: special tokens in the text are read as such. start: it begins as the tokenizer begins texts
        (`start_ids`); nothing is added where the text says it itself.
        """
        ids = self.encode_rendered(text) if parse_special else self.encode(text)
        added = self.start_ids if start else []
        return (ids, 0) if ids[:len(added)] == added else (added + ids, len(added))

    def check_length(self, texts: Iterable[str], max_tokens: int | None) -> None:
        """Raises TextTooLong if texts certainly have more tokens together, which their length alone tells: to tokenize
        megabytes takes seconds. (Where a tokenizer drops white space, what it drops counts too.)"""
        if max_tokens is not None and (length := sum(map(len, texts))) > max_tokens * self._longest_token:
            raise TextTooLong(f"{length:,} characters are more than {max_tokens:,} tokens")

    @cached_property
    def _longest_token(self) -> int:
        """Characters of a text that one token can stand for."""
        return max(map(len, self.bpe.get_vocab()), default=1)

    def decode(self, ids: list[int], keep_special: bool = False) -> str:
        """The text of ids, by themselves. Of sentencepiece tokenizers the space before the first word is left out."""
        if len(ids) < SHORT_TEXT:
            return self.bpe.decode(ids, skip_special_tokens=not keep_special)
        return self.bpe.decode_batch([ids], skip_special_tokens=not keep_special)[0]  # lets other threads run meanwhile

    def decode_after(self, before: Sequence[int], ids: Sequence[int], keep_special: bool = False) -> str:
        """What ids add to the text of the ids before them: with the space at the join, where there is one."""
        context = self.context(before, keep_special)
        if not context:
            return self.decode(list(ids), keep_special)
        return self.decode([*context, *ids], keep_special)[len(self.decode(context, keep_special)):]

    def context(self, before: Sequence[int], keep_special: bool = False) -> list[int]:
        """The last ones of `before` on which the text of what follows depends: none for byte-level tokenizers, else as many as
        show some text, with whole runs of bytes."""
        if self._decodes_each_alone:
            return []
        count = 4
        while True:
            while count < len(before) and (before[-count] in self.byte_ids or self.is_hidden(before[-count], keep_special)):
                count += 1
            tail = list(before[-count:])
            if count >= len(before) or self.decode(tail, keep_special):
                return tail
            count *= 4

    @cached_property
    def _decodes_each_alone(self) -> bool:
        return decoder_kinds(self.bpe) <= {"ByteLevel", "Fuse"}

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """Tokens of one byte each (sentencepiece's byte fallback). A run of them is text if all of it is UTF-8."""
        if "ByteFallback" not in decoder_kinds(self.bpe):
            return frozenset()
        ids = (self.bpe.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        return frozenset(i for i in ids if i is not None)

    def is_hidden(self, token: int, keep_special: bool = False) -> bool:
        """Whether `decode` leaves it out: a special token, or a row of the model that is no token."""
        return not keep_special and token in self._special_ids or self.bpe.id_to_token(token) is None

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(i for i, token in self.bpe.get_added_tokens_decoder().items() if token.special)

    def token_bytes(self, token: int) -> bytes | None:
        """A byte token's byte."""
        return bytes.fromhex((self.bpe.id_to_token(token) or "")[3:5]) if token in self.byte_ids else None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True, tools: Sequence[Tool] | None = None,
               documents: Sequence[dict] | None = None, variables: Mapping[str, object] | None = None) -> str:
        """The conversation as one string with its special tokens, through the checkpoint's jinja template.

        tools: JSON schemas, or functions with type hints and a docstring. variables: further ones that the template reads,
        such as Qwen3's `enable_thinking`.

        Raises:
            UserError: there is no template, or it refuses the conversation.
        """
        conversation = Conversation.of(messages, tools, documents, variables, add_generation_prompt)
        return self.templates.render(conversation, self.special_tokens)

    def chat_ids(self, messages: Sequence[Message], tools: Sequence[Tool] | None = None,
                 documents: Sequence[dict] | None = None, variables: Mapping[str, object] | None = None,
                 add_generation_prompt: bool = True, continuation: Sequence[tuple[str, bool]] = (),
                 max_tokens: int | None = None) -> list[int]:
        """Prompt ids of a conversation, with the opened thought where the template opens one (arguments as in `render`).
        continuation: what follows the prompt, as (text, whether it belongs to the format). max_tokens: see `check_length`.

        These are the ids of the rendered string, except that no text of a message, a tool or a variable becomes a special
        token. (`</think>` in an assistant's message is handled by the template.)
        """
        for message in messages:
            if isinstance(message.get("content"), str):
                self.check_length([message["content"]], max_tokens)
        conversation = Conversation.of(messages, tools, documents, variables, add_generation_prompt)
        template = self.templates.choose(conversation.tools is not None)
        unknown = [m["role"] for m in messages if m["role"] not in ("system", "user", "assistant")]
        if unknown and template == _own_template():  # our template would ignore them
            raise TemplateRefusal(f"role = {unknown[0]!r}: a message is of the system, the user or the assistant.")
        mark = unused_mark(conversation, template + "".join(text for text, _ in continuation))
        rendered = self.templates.render(self._added_tokens.marked(conversation, mark), self.special_tokens)
        rendered += "".join(text if frame else self._added_tokens.marked_text(text, mark) for text, frame in continuation)
        pieces = cut_at(mark, rendered)
        self.check_length(pieces, max_tokens)
        return self._encode_pieces(pieces)

    def encode_rendered(self, text: str, continues: bool = False) -> list[int]:
        """Ids of a text in which special tokens are meant as such. continues: see `encode`."""
        try:
            if continues and self._continuing is not self.bpe:
                return self._encode_continuation(text)
            if len(text) < SHORT_TEXT:
                return self.bpe.encode(text, add_special_tokens=False).ids
            return self.bpe.encode_batch_fast([text], add_special_tokens=False)[0].ids  # lets other threads run meanwhile
        except TypeError:  # what the library raises
            refuse_half_characters(text, "a text")
            raise

    @cached_property
    def _continuing(self) -> BPE:
        return without_prefix_space(self.bpe)

    def _encode_continuation(self, text: str) -> list[int]:
        """What follows a special token is encoded as everywhere."""
        encoding = self._continuing.encode(text, add_special_tokens=False)
        added = self.bpe.get_added_tokens_decoder()
        first = next((index for index, i in enumerate(encoding.ids) if i in added), None)
        if first is None:
            return encoding.ids
        rest = text[encoding.offsets[first][0]:]
        return encoding.ids[:first] + self.bpe.encode(rest, add_special_tokens=False).ids


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, folder: Path) -> None:
    """Every token must have a row in the model's embedding (a few that have none were left out when it was read); fewer tokens
    than rows are fine, published models pad.

    Raises:
        RunError: an id of the tokenizer lies beyond `vocab_size` (of config.json).
    """
    needed = tokens_needed(tokenizer.bpe)
    if needed > vocab_size:
        raise RunError(f"{Path(folder) / 'tokenizer.json'}: has {needed} tokens but config.json says vocab_size = "
                       f"{vocab_size}. The files belong to different models: restore them.")


def _ids_before_text(bpe: BPE) -> list[int]:
    """The special tokens that the post-processor puts before a text."""
    encoding = bpe.encode("a")
    return [i for i, _ in takewhile(itemgetter(1), zip(encoding.ids, encoding.special_tokens_mask))]


@cache
def _own_template() -> str:
    return resources.files("spoutnik.text").joinpath("chat_template.jinja").read_text("utf-8")


def _object(path: Path) -> dict:
    """The JSON object in an optional file."""
    value = read_json(path) if path.exists() else {}
    if not isinstance(value, dict):
        raise RunError(f"{path}: must hold a JSON object, not a {type(value).__name__}. Restore it.")
    return value


def _token_text(value: object) -> str | None:
    """A special token is given as its text, or as an object with its text under `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _ids(value: object) -> list[int]:
    """`eos_token_id` and the like: an id, a list of them or null."""
    return [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]


def _read_bpe(folder: Path, config: dict, model: dict) -> BPE:
    """config, model: the contents of tokenizer_config.json, of which what says how to read the files is left out, and of
    config.json."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return _read_other(folder, config, model)
    if is_lfs_pointer(path):
        raise RunError(LFS_POINTER.format(path=path))
    try:
        with path.open("rb") as file:
            marked = file.read(3) == codecs.BOM_UTF8  # of some editors; the library takes it for a mistake
        bpe = BPE.from_str(path.read_text("utf-8-sig")) if marked else BPE.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise RunError(f"{path}: is not a tokenizer ({error}). Restore it, or run its stage again.") from error
    bpe.no_truncation()  # some published files carry the settings of a training batch
    bpe.no_padding()
    return as_its_class_says(bpe, {"tokenizer_class": model.get("tokenizer_class")} | config)


def _read_other(folder: Path, config: dict, model: dict) -> BPE:
    """Of a folder without tokenizer.json. `config` becomes what belongs beside one: saved again, it is."""
    if (ranks := find_ranks(folder)) is not None:
        bpe = read_tiktoken(ranks, config, model.get("model_type"))
        config.pop("auto_map", None)  # no code is needed
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        return bpe
    if (pieces := find_sentencepiece(folder)) is not None:
        return read_sentencepiece_tokenizer(pieces, config, _object(folder / "special_tokens_map.json"),
                                            _object(folder / "added_tokens.json"))
    if (gguf := folder / GGUF).is_symlink():  # gguf_folder.py: the folder is of our cache, the file is the user's
        raise RunError(f"{gguf.resolve()}: holds no tokenizer (tokenizer.ggml.model). Fetch a file that has one, or give the "
                       "model's folder of safetensors.")
    raise RunError(f"{folder / 'tokenizer.json'}: not found. {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    if (folder / "vocab.json").exists():
        return ("The folder holds a tokenizer of the older kind: load it once with transformers' AutoTokenizer and save it "
                "there with save_pretrained, which writes tokenizer.json.")
    return "The checkpoint is incomplete: restore it or run its stage again."
