"""A request's tools: which the model may call, and how its prompt describes them. Some templates write tools, some calls and
their results, some both, some neither. What a template does not write is put into words here."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from spoutnik.errors import UserError
from spoutnik.generation.tools.formats import Format, convention
from spoutnik.text.chat_template import Message
from spoutnik.text.tokenizer import Tokenizer

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_CALLS = 8  # in one answer: whoever needs more calls again when the results are there
_NO_PARAMETERS = {"properties": {}, "additionalProperties": False}  # where a tool gives none


@dataclass(frozen=True)
class Function:
    """parameters: a JSON schema of an object. strict: arguments must keep all of it."""

    name: str
    description: str
    parameters: dict
    strict: bool


@dataclass(frozen=True)
class ToolSet:
    """The tools of one request, parsed once. definitions: as the API has them, for templates that describe them. described:
    those that the model is told of. callable: those that it may call; it must call one where `required`, and may call so many
    (max_calls) in one answer."""

    definitions: tuple[Mapping, ...] = ()
    described: tuple[Function, ...] = ()
    callable: tuple[Function, ...] = ()
    required: bool = False
    max_calls: int = MAX_CALLS

    @classmethod
    def parse(cls, tools: Sequence[Mapping] | None, tool_choice: str | Mapping | None = None) -> "ToolSet":
        """With the choice "none" the model is told of no tools; with the name of one, or of some (`allowed_tools`), it is told
        of all, and calls that one, once, or some of those. "any" is "required".

        Raises:
            UserError: tools or tool_choice are not of the API's form; says what and where.
        """
        functions: dict[str, Function] = {}
        for number, tool in enumerate(tools or ()):
            function = _parse(tool, f"tools[{number}]", functions)
            functions[function.name] = function
        if tool_choice == "none":
            return NO_TOOLS
        described, allowed = tuple(functions.values()), functions
        if isinstance(tool_choice, Mapping) and tool_choice.get("type") == "allowed_tools":
            allowed, tool_choice = _allowed(functions, tool_choice)
        return cls(tuple(tools or ()), described, _callable(allowed, tool_choice), tool_choice not in (None, "auto"),
                   1 if isinstance(tool_choice, Mapping) else MAX_CALLS)

    def conversation(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[Message], list[Mapping] | None]:
        """(messages, tools) for Tokenizer.chat_ids: calls, results and tools as the model's template takes them."""
        if not self.described and not any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
            return list(messages), None
        template = convention(tokenizer)
        messages = (_for_template if template.renders else in_words)(messages, template.format)
        if not self.described:
            return messages, None
        if template.describes:
            return messages, list(self.definitions)
        return _with_tools(messages, self.described, template.format), None


NO_TOOLS = ToolSet()


def _parse(tool: Mapping, place: str, others: Mapping[str, Function]) -> Function:
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
        raise UserError(f"{place}: must be {{\"type\": \"function\", \"function\": {{...}}}}; other types are unknown.")
    name, parameters = function.get("name"), function.get("parameters") or _NO_PARAMETERS
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in others:
        raise UserError(f"{place}.function.name = {name!r}: must be 1 to 64 letters, digits, dots, dashes or underscores, "
                        "and no other tool's.")
    kinds = parameters.get("type", "object") if isinstance(parameters, Mapping) else None
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise UserError(f"{place}.function.parameters: must be the JSON schema of an object.")
    return Function(name, function.get("description") or "", {**parameters, "type": "object"}, bool(function.get("strict")))


def _allowed(functions: Mapping[str, Function], choice: Mapping) -> tuple[dict[str, Function], str]:
    """The functions that may be called, and whether one must: OpenAI's `allowed_tools`."""
    inner = choice.get("allowed_tools")
    named, mode = (inner.get("tools"), inner.get("mode", "auto")) if isinstance(inner, Mapping) else (None, None)
    if not isinstance(named, list) or mode not in ("auto", "required"):
        raise UserError("tool_choice.allowed_tools: must be {\"mode\": \"auto\" or \"required\", \"tools\": [...]}.")
    allowed = [_callable(functions, tool)[0] for tool in named if isinstance(tool, Mapping)]
    if len(allowed) < len(named) or not named:
        raise UserError("tool_choice.allowed_tools.tools: must name one tool at least, each as {\"type\": \"function\", "
                        "\"function\": {\"name\": ...}}.")
    return {function.name: function for function in allowed}, mode


def _callable(functions: Mapping[str, Function], choice: str | Mapping | None) -> tuple[Function, ...]:
    if choice in (None, "auto"):
        return tuple(functions.values())
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or name not in functions:
            raise UserError(f"tool_choice: there is no tool {name!r}. Name one of tools: {', '.join(functions) or 'none'}.")
        return (functions[name],)
    if choice not in ("required", "any"):
        raise UserError(f"tool_choice = {choice!r}: unknown. Choose auto, none, required or "
                        "{\"type\": \"function\", \"function\": {\"name\": ...}}.")
    if not functions:
        raise UserError(f"tool_choice = {choice!r}: there are no tools to call. Give tools, or leave it out.")
    return tuple(functions.values())


def _for_template(messages: Sequence[Message], format: Format) -> list[Message]:
    """For a template that writes calls: arguments as text or as objects, whichever it takes."""
    rendered: list[Message] = []
    for message in messages:
        plain = {key: value for key, value in message.items() if key != "tool_calls"}
        if not message.get("tool_calls"):
            rendered.append(plain)
            continue
        change = _as_text if format.as_text else _as_object
        calls = [{"type": "function", **call, "function": {**call["function"], "arguments": change(call["function"])}}
                 for call in message["tool_calls"]]
        if format.alone and plain.get("content"):
            rendered.append(plain)
            plain = {"role": "assistant"}
        rendered.append(plain | {"content": plain.get("content") or None, "tool_calls": calls})
    return rendered


def in_words(messages: Sequence[Message], format: Format) -> list[Message]:
    """For one that does not: calls as the assistant's text, results as the user's, those of one turn together."""
    rendered: list[Message] = []
    for results, group in groupby(messages, lambda message: message["role"] == "tool"):
        if results:
            texts = [f"<tool_response>\n{message.get('content') or ''}\n</tool_response>" for message in group]
            rendered.append({"role": "user", "content": "\n".join(texts)})
        else:
            for message in group:
                plain = {key: value for key, value in message.items() if key != "tool_calls"}
                calls = [(call["function"]["name"], _as_text(call["function"])) for call in message.get("tool_calls") or ()]
                if calls:
                    plain["content"] = "\n".join(filter(None, [message.get("content"), format.written(calls)]))
                rendered.append(plain)
    return rendered


def _as_text(function: Mapping) -> str:
    arguments = function.get("arguments") or {}
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _as_object(function: Mapping) -> object:
    try:
        return json.loads(_as_text(function))
    except (ValueError, RecursionError):
        return function["arguments"]  # what a model once wrote, right or wrong


def _with_tools(messages: list[Message], functions: Sequence[Function], format: Format) -> list[Message]:
    """For a template that describes no tools: with their descriptions in the system message."""
    listed = [json.dumps({key: value for key in ("name", "description", "parameters") if (value := getattr(function, key))},
                         ensure_ascii=False) for function in functions]
    text = "\n".join(["You can call these functions:", *listed, "", "To call one, write its name and its arguments in JSON:",
                      format.written([("NAME", "ARGUMENTS")]), "Write nothing after calls: results come in the next message."])
    if messages and messages[0]["role"] == "system":
        return [messages[0] | {"content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
