"""Calls of tools: which there may be, what a model is told of them, and how its calls are read while they come.

Templates differ in what they know: the tools, calls and their results, both, or nothing of the kind. What one does not know
is put into words here.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from itertools import groupby

from spoutnik.errors import UserError
from spoutnik.generation.tools.formats import HERMES, UNFINISHED, Format, Scan, convention, matched
from spoutnik.text.chat_template import Message
from spoutnik.text.tokenizer import Tokenizer

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOTHING = {"properties": {}, "additionalProperties": False}  # the arguments of a tool that says nothing of them


def functions_of(tools: Sequence[Mapping] | None, choice: str | Mapping | None = None) -> list[dict]:
    """The functions that may be called, each with name, description, parameters (a schema) and strict.

    Raises:
        UserError: tools or tool_choice are not of the API's form.
    """
    functions: dict[str, dict] = {}
    for number, tool in enumerate(tools or ()):
        function, place = tool.get("function"), f"tools[{number}]"
        if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
            raise UserError(f"{place}: must be {{\"type\": \"function\", \"function\": {{...}}}}; other types are unknown.")
        name, parameters = function.get("name"), function.get("parameters") or _NOTHING
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in functions:
            raise UserError(f"{place}.function.name = {name!r}: must be 1 to 64 letters, digits, dots, dashes or underscores, "
                            "and no other tool's.")
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
            raise UserError(f"{place}.function.parameters: must be the JSON schema of an object.")
        functions[name] = {"name": name, "description": function.get("description") or "",
                           "parameters": {"type": "object", **parameters}, "strict": bool(function.get("strict"))}
    return _chosen(functions, choice)


def _chosen(functions: dict[str, dict], choice: str | Mapping | None) -> list[dict]:
    if choice in (None, "auto", "none"):
        return [] if choice == "none" else list(functions.values())
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or name not in functions:
            raise UserError(f"tool_choice: there is no tool {name!r}. Name one of tools: {', '.join(functions) or 'none'}.")
        return [functions[name]]
    if choice != "required":
        raise UserError(f"tool_choice = {choice!r}: unknown. Choose auto, none, required or "
                        "{\"type\": \"function\", \"function\": {\"name\": ...}}.")
    if not functions:
        raise UserError("tool_choice = 'required': there are no tools to call. Give tools, or leave it out.")
    return list(functions.values())


# ----------------------------------------------------------------------------------------------------- what the model reads


def conversation(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Mapping] | None = None,
                 choice: str | Mapping | None = None) -> tuple[list[Message], list[dict] | None]:
    """(messages, tools) for Tokenizer.chat_ids. With the choice "none" the model is told of no tools.

    Raises:
        UserError: tools are not of the API's form.
    """
    functions = [] if choice == "none" else functions_of(tools)
    if not functions and not any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
        return list(messages), None
    known = convention(tokenizer)
    told = _for_template(messages, known.format) if known.renders else _plainly(messages, known.format)
    if known.describes:
        return told, list(tools) if functions else None
    return (_described(told, functions, known.format) if functions else told), None


def _for_template(messages: Sequence[Message], format: Format) -> list[Message]:
    """Arguments as text or as objects, whichever the template writes."""
    told: list[Message] = []
    for message in messages:
        said = _without_calls(message)
        if not message.get("tool_calls"):
            told.append(said)
            continue
        change = _as_text if format.as_text else _as_object
        calls = [{"type": "function", **call, "function": {**call["function"], "arguments": change(call["function"])}}
                 for call in message["tool_calls"]]
        if format.alone and said.get("content"):
            told.append(said)
            said = {"role": "assistant"}
        told.append(said | {"content": said.get("content") or None, "tool_calls": calls})
    return told


def _plainly(messages: Sequence[Message], format: Format) -> list[Message]:
    """Calls as the assistant's text, their results as the user's, those of one turn in one message."""
    told: list[Message] = []
    for results, group in groupby(messages, lambda message: message["role"] == "tool"):
        if results:
            texts = [f"<tool_response>\n{message.get('content') or ''}\n</tool_response>" for message in group]
            told.append({"role": "user", "content": "\n".join(texts)})
        else:
            told += [_said(message, format) for message in group]
    return told


def _said(message: Message, format: Format) -> Message:
    if not message.get("tool_calls"):
        return _without_calls(message)
    calls = format.written([(call["function"]["name"], _as_text(call["function"])) for call in message["tool_calls"]])
    return _without_calls(message) | {"content": "\n".join(filter(None, [message.get("content"), calls]))}


def _without_calls(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "tool_calls"}


def _as_text(function: Mapping) -> str:
    arguments = function.get("arguments") or {}
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _as_object(function: Mapping) -> object:
    try:
        return json.loads(_as_text(function))
    except (ValueError, RecursionError):
        return function["arguments"]  # what a model once wrote, right or wrong


def _described(messages: list[Message], functions: list[dict], format: Format) -> list[Message]:
    """With the tools in the system message."""
    listed = [json.dumps({key: function[key] for key in ("name", "description", "parameters") if function[key]},
                         ensure_ascii=False) for function in functions]
    text = "\n".join(["You can call these functions:", *listed, "", "To call one, write its name and its arguments in JSON:",
                      format.written([("NAME", "ARGUMENTS")]), "Write nothing after calls: results come in the next message."])
    if messages and messages[0]["role"] == "system":
        return [messages[0] | {"content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


# ---------------------------------------------------------------------------------------------------- what the model writes


class ToolCallStream:
    """Takes an answer's text in pieces of any size; gives back what is content, and calls as the API's deltas.

    A call is told of once its name and the beginning of its arguments are there; these follow as they come. What turns out to
    be no call (an unknown name, another form) is content. began: calls so far.
    """

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[Mapping] | None, choice: str | Mapping | None = None):
        self.names = [function["name"] for function in functions_of(tools, choice)]
        self.format = convention(tokenizer).format if self.names else HERMES
        self.began = 0
        self._held = self._space = ""  # not given out yet; white space before what may be a call
        self._read = self._text
        self._scan = Scan()
        self._shown = self._inside = False  # some content was given out; calls have begun and not ended
        self._content: list[str] = []
        self._deltas: list[dict] = []

    def feed(self, text: str) -> tuple[str, list[dict]]:
        if not self.names:
            return text, []
        self._held += text
        while self._held and self._read():
            pass
        return self._given()

    def close(self) -> tuple[str, list[dict]]:
        """Nothing follows: the beginning of what is no whole call is content, too. White space after a call is not."""
        if self._read in (self._text, self._head):
            self._show((self._space + self._held).rstrip() if self.began else self._space + self._held)
        self._held = self._space = ""
        return self._given()

    def _given(self) -> tuple[str, list[dict]]:
        content, deltas = "".join(self._content), self._deltas
        self._content, self._deltas = [], []
        return content, deltas

    def _show(self, text: str) -> None:
        self._shown = self._shown or bool(text.strip())
        self._content.append(text)

    # Each of these reads one part of what is held; false: it must wait for more.

    def _text(self) -> bool:
        if self._inside and self.format.end:
            at = matched(self._held, self.format.end)
            if at == UNFINISHED:
                return False
            if at is not None:
                self._held, self._inside = self._held[at:], False
                return True
        at, begun = self._mark()
        text = self._held[:at]
        shown = text.rstrip()
        self._show(self._space + shown if shown else "")
        self._space = text[len(shown):] if shown else self._space + text
        self._held = self._held[at:]
        if begun:
            self._read = self._head
        return begun

    def _mark(self) -> tuple[int, bool]:
        """Where what is held has, or may have, the beginning of a call; is it one?"""
        if self.format.at_start:
            begins = not self._shown and not self.began and self._held.lstrip().startswith("{")
            return (self._held.index("{"), True) if begins else (len(self._held), False)
        marks = self.format.marks[:2] if self.format.begin else self.format.marks[:1]
        found = [at for mark in marks if (at := self._held.find(mark)) >= 0]
        if found:
            return min(found), True
        keep = next((n for n in range(min(max(map(len, marks)) - 1, len(self._held)), 0, -1)
                     if any(mark.startswith(self._held[-n:]) for mark in marks)), 0)
        return len(self._held) - keep, False

    def _head(self) -> bool:
        """From the mark to the beginning of the arguments."""
        openings = {self.format.before, self.format.begin + self.format.before}
        tried = [(matched(self._held, f"{opening}{name}{self.format.middle}{{"), name)
                 for name in self.names for opening in openings]
        found = next(((at, name) for at, name in tried if at is not None and at != UNFINISHED), None)
        if found is None and any(at == UNFINISHED for at, _ in tried):
            return False
        if found is None:
            end = next((len(mark) for mark in self.format.marks if self._held.startswith(mark)), 1)
            self._show(self._space + self._held[:end])
            self._space, self._held, self._read = "", self._held[end:], self._text
            return True
        at, name = found
        self._deltas.append({"index": self.began, "id": f"call_{secrets.token_hex(12)}", "type": "function",
                             "function": {"name": name, "arguments": ""}})
        self.began, self._inside, self._scan = self.began + 1, True, Scan()
        self._space, self._held, self._read = "", self._held[at - 1:], self._arguments
        return True

    def _arguments(self) -> bool:
        at = self._scan.feed(self._held)
        self._deltas.append({"index": self.began - 1, "function": {"arguments": self._held[:at]}})
        self._held = self._held[at:]
        if self._scan.over:
            self._read = self._tail
        return self._scan.over

    def _tail(self) -> bool:
        at = matched(self._held, self.format.after)
        if at == UNFINISHED:
            return False
        self._held, self._read = self._held[at or 0:], self._text
        return True


def whole_calls(deltas: Sequence[Mapping]) -> list[dict]:
    """All the deltas of an answer as the calls of a message."""
    calls: list[dict] = []
    for delta in deltas:
        if "id" in delta:
            calls.append({"id": delta["id"], "type": "function", "function": dict(delta["function"])})
        else:
            calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
    return calls
