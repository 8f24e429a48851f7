"""Chat templates: the jinja programs of published checkpoints, run in a sandbox.

A template is untrusted code. It sees plain JSON values and the helpers of transformers' `apply_chat_template`, and nothing
else; whatever it raises becomes a UserError.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json, write_text
from spoutnik.text.tool_schema import tool_schema

TEMPLATE_FILE, EXTRA_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
REASONING = ("reasoning_content", "thinking", "reasoning")  # keys under which messages carry their thought

class TemplateRefusal(UserError):
    """A template does not take a conversation; another one might, or this one another conversation."""


Message = dict[str, object]  # {"role": ..., "content": text, ...}
Tool = dict | Callable


@dataclass(frozen=True)
class Conversation:
    """A template's input, in plain JSON values. variables: the template's own switches (Qwen3's `enable_thinking`)."""

    messages: list[Message]
    tools: list[dict] | None = None
    documents: list[dict] | None = None
    variables: Mapping[str, object] = field(default_factory=dict)
    add_generation_prompt: bool = True

    @staticmethod
    def of(messages: Sequence[Message], tools: Sequence[Tool] | None, documents: Sequence[dict] | None,
           variables: Mapping[str, object] | None, add_generation_prompt: bool) -> "Conversation":
        """Checks the input; tools that are functions become their JSON schemas.

        Raises:
            UserError: there is no message, one has no role, or a value is not a plain one.
        """
        if not messages:
            raise UserError("messages: is empty. A conversation needs at least one message.")
        for message in messages:
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise UserError(f"messages: {message!r} has no role. A message is {{\"role\": ..., \"content\": ...}}.")
        schemas = None if tools is None else [tool_schema(tool) if callable(tool) else tool for tool in tools]
        for name, values in (("tools", schemas), ("documents", documents)):
            if not all(isinstance(value, Mapping) for value in values or ()):
                raise UserError(f"{name}: holds something that is neither a dict nor (for tools) a function.")
        plain = [_with_reasoning(map_strings(message, str)) for message in messages]
        return Conversation(plain, map_strings(schemas, str), map_strings(documents, str),
                            map_strings(variables or {}, str), add_generation_prompt)


def refuse_half_characters(text: str, place: str) -> None:
    """Raises UserError for a text with a lone surrogate, which JSON and Python can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 20, 0):error.start + 20]
        raise UserError(f"{place}: {around!r} holds half a character (a lone surrogate). Remove it.") from error


def map_strings(value: object, change: Callable[[str], str]) -> object:
    """`value` rebuilt from plain JSON types, with `change` applied to every string, keys included.

    Raises:
        UserError: a part has another type, or a text has a lone surrogate, which UTF-8 cannot encode.
    """
    if isinstance(value, str):
        refuse_half_characters(value, "conversation")
        return change(str(value))
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [map_strings(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    raise UserError(f"conversation: holds a {type(value).__name__}, which a chat template must not see. "
                    "Give texts, numbers, lists and dicts.")


def _with_reasoning(message: Message) -> Message:
    """Puts a message's thought under both keys that published templates read."""
    thought = next((message[name] for name in REASONING if message.get(name) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}


@dataclass(frozen=True)
class ChatTemplates:
    """A checkpoint's templates by name: "default", and "tool_use" if there is one for tools. origin: their file, for errors."""

    sources: dict[str, str]
    origin: str

    @staticmethod
    def load(folder: Path, tokenizer_config: dict) -> "ChatTemplates":
        """Template files take precedence over keys of the JSON files, as in transformers. Base models have no template."""
        default, extra = folder / TEMPLATE_FILE, folder / EXTRA_TEMPLATES
        paths = {"default": default} if default.exists() else {}
        paths |= {path.stem: path for path in sorted(extra.glob("*.jinja"))}
        if paths:
            sources = {name: _read(path) for name, path in paths.items()}
            # An empty one would make every prompt empty.
            return ChatTemplates({name: source for name, source in sources.items() if source.strip()}, str(default))
        alone = folder / "chat_template.json"
        if alone.exists():
            return ChatTemplates(_named(read_json(alone), alone), str(alone))
        origin = folder / "tokenizer_config.json"
        return ChatTemplates(_named(tokenizer_config, origin), str(origin))

    def save(self, folder: Path) -> None:
        """Writes the files where transformers looks first."""
        for name, source in self.sources.items():
            write_text(folder / TEMPLATE_FILE if name == "default" else folder / EXTRA_TEMPLATES / f"{name}.jinja", source)

    def choose(self, with_tools: bool) -> str:
        """The source of the template for a conversation.

        Raises:
            UserError: there is none.
        """
        name = "tool_use" if with_tools and "tool_use" in self.sources else "default"
        if name not in self.sources:
            raise UserError(f"{Path(self.origin).name}: gives no chat template, so this model cannot chat (base models only "
                            "continue text). Take the chat or instruct model, or put its chat_template.jinja into the folder.")
        return self.sources[name]

    def render(self, conversation: Conversation, special_tokens: Mapping[str, str]) -> str:
        """The conversation as one string. special_tokens: bos_token and the like, by name.

        Raises:
            UserError: no template. TemplateRefusal: it refused the conversation (its message is in the sentence).
            RunError: the template is not jinja.
        """
        source = self.choose(conversation.tools is not None)
        template = _compile(source, self.origin)
        try:
            return template.render({
                **special_tokens, **conversation.variables, "messages": _without_nones(conversation.messages, source),
                "tools": conversation.tools, "documents": conversation.documents,
                "add_generation_prompt": conversation.add_generation_prompt})
        except Exception as error:  # untrusted code may raise anything
            raise TemplateRefusal(f"{Path(self.origin).name}: the chat template refuses this conversation ({error}). Change "
                                  "the messages, or the template.") from error


# DeepSeek's templates tell tool calls apart by `message['content'] is none`.
_ASKS_FOR_NONE = re.compile(r"""content['"\]]*\s+is\s+(not\s+)?none""", re.IGNORECASE)


def _without_nones(messages: list[Message], source: str) -> list[Message]:
    """Drops keys whose value is None, as transformers does: most templates would write "None". A content of None stays where
    the template tests for it (transformers drops it, and R1's own template then fails on tool calls)."""
    nullable = {"content"} if _ASKS_FOR_NONE.search(source) else set()
    return [{key: value for key, value in message.items() if value is not None or key in nullable} for message in messages]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # the mark that some editors write would begin every prompt
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: is not a text in UTF-8 ({error}). Restore it.") from error


def _named(settings: dict, path: Path) -> dict[str, str]:
    """The key `chat_template`: a text, or a list of {name, template}."""
    value = settings.get("chat_template") or {}
    if isinstance(value, str):
        return {"default": value} if value.strip() else {}
    try:
        named = value if isinstance(value, dict) else {entry["name"]: entry["template"] for entry in value}
        if all(re.fullmatch(r"[\w-]+", name) and isinstance(source, str) for name, source in named.items()):
            return named
    except (TypeError, KeyError):
        pass
    raise RunError(f"{path}: chat_template must be a text or a list of {{\"name\", \"template\"}}. Restore the file.")


@lru_cache(maxsize=16)
def _compile(source: str, origin: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[_Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise_exception, "dict": _Dict(), "namespace": _Namespace,
                            "strftime_now": lambda layout: datetime.now().strftime(layout)}
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise RunError(f"{origin}: is not a valid jinja template (its line {error.lineno}: {error.message}). "
                       "Restore it.") from error


# The names and arguments below are visible to templates.

class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's text for training masks; here it is only rendered."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Dict:
    """`dict(...)` without the type, whose unbound methods could change values that the sandbox protects."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, keys, value=None):
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """`namespace(...)` without underscored names: Python would call the values of some of them."""

    def __init__(*args, **kwargs):
        Namespace.__init__(*args, **kwargs)
        for name in dict(*args[1:], **kwargs):
            _refuse_underscore(name)

    def __setitem__(self, name, value):
        _refuse_underscore(name)
        Namespace.__setitem__(self, name, value)


def _refuse_underscore(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace must not hold {name!r}")


def _raise_exception(message):
    raise jinja2.TemplateError(message)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
