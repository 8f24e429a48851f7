"""Plain data on the wire: values of built-in types as JSON, and the calls that tests and solution exchange.

Values of built-in types travel by value. A subclass of a built-in type (a Counter, a named tuple, an int that calls itself
equal to everything) travels as the built-in value that it holds, taken by the built-in type's own methods. Everything else
stays where it is: the other side gets a number for it, and may call it, read an attribute or iterate, each by a message.
"""

import json
import sys

MAX_DEPTH = 200
MAX_MESSAGE = 64 << 20  # bytes
TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict,
                                          range, type(None), type, object)}
LARGE = 1 << 63  # integers from here on travel as hexadecimal digits, which have no limit of length


class Unsendable(Exception):
    """A value that is too deep, or refers to itself."""


def encode(value: object, keep, depth: int = 0) -> object:
    """`value` for json.dumps. keep(object) gives what stands for an object that is not plain data."""
    if depth > MAX_DEPTH:
        raise Unsendable("The value is nested too deeply.")
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if issubclass(kind, int):
        number = int.__int__(value)
        return number if -LARGE < number < LARGE else {"t": "int", "v": hex(number)}
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, list):
        return [encode(item, keep, depth + 1) for item in list.__iter__(value)]
    for base in (tuple, set, frozenset):
        if issubclass(kind, base):
            return {"t": base.__name__, "v": [encode(item, keep, depth + 1) for item in base.__iter__(value)]}
    if issubclass(kind, dict):
        return {"t": "dict", "v": [[encode(key, keep, depth + 1), encode(item, keep, depth + 1)]
                                   for key, item in dict.items(value)]}
    if issubclass(kind, (bytes, bytearray)):
        base = bytes if issubclass(kind, bytes) else bytearray
        return {"t": base.__name__, "v": bytes(base.__getitem__(value, slice(None))).hex()}
    if issubclass(kind, complex):
        return {"t": "complex", "v": [complex.real.__get__(value), complex.imag.__get__(value)]}
    if kind is range:
        return {"t": "range", "v": [encode(part, keep, depth) for part in (value.start, value.stop, value.step)]}
    if kind is type and TYPES.get(value.__name__) is value:
        return {"t": "type", "v": value.__name__}
    return _library_value(value, kind) or keep(value)


def _library_value(value: object, kind: type) -> dict | None:
    """Exact numbers and queues of the standard library, by value; None for anything else."""
    if kind.__module__ not in ("decimal", "fractions", "collections"):
        return None
    for module, name in (("decimal", "Decimal"), ("fractions", "Fraction")):
        if module in sys.modules and kind is getattr(sys.modules[module], name):
            return {"t": name, "v": str(value)}
    return None


def decode(value: object, find) -> object:
    """The value that `encode` wrote. find(kind, number) gives what stands for an object that stayed on one side."""
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = value["t"], value["v"]
    if kind in ("theirs", "ours"):
        return find(kind, content)
    if kind == "int":
        return int(content, 16)
    if kind in ("tuple", "set", "frozenset"):
        return TYPES[kind](decode(item, find) for item in content)
    if kind == "dict":
        return {decode(key, find): decode(item, find) for key, item in content}
    if kind in ("bytes", "bytearray"):
        return TYPES[kind].fromhex(content)
    if kind == "complex":
        return complex(*content)
    if kind == "range":
        return range(*(decode(part, find) for part in content))
    if kind == "type":
        return TYPES[content]
    if kind == "Decimal":
        from decimal import Decimal
        return Decimal(content)
    if kind == "Fraction":
        from fractions import Fraction
        return Fraction(content)
    raise ValueError(f"An unknown kind of value: {kind!r}.")


class Closed(Exception):
    """The other side has ended, or sends what is no message."""


class Peer:
    """One end of the channel. Each side keeps its own objects under numbers; requests may nest (a callback during a call).

    Args:
        file: number of the open socket.
        serve: answers a request of the other side: (request) -> JSON-ready answer.
        stand_in: the class of what stands here for an object of the other side; its `_number` is the object's number there.
        owner: what a stand-in is made with, before the number.
    """

    def __init__(self, file: int, serve, stand_in: type, owner: object) -> None:
        self._reader, self._writer = open(file, "rb", closefd=False), open(file, "wb", buffering=0, closefd=False)
        self._serve, self._stand_in, self._owner = serve, stand_in, owner
        self._objects: dict[int, object] = {}
        self._stand_ins: dict[int, object] = {}

    def encode(self, value: object) -> object:
        return encode(value, self._keep)

    def decode(self, value: object) -> object:
        return decode(value, self._find)

    def _keep(self, value: object) -> dict:
        """What goes over the wire for an object: words for the reader, to whom a stand-in's object is its own."""
        if type(value) is self._stand_in:
            return {"t": "ours", "v": object.__getattribute__(value, "_number")}
        self._objects[id(value)] = value
        return {"t": "theirs", "v": id(value)}

    def _find(self, kind: str, number: int) -> object:
        if kind == "ours":
            return self._objects[number]
        if number not in self._stand_ins:
            self._stand_ins[number] = self._stand_in(self._owner, number)
        return self._stand_ins[number]

    def send(self, message: dict) -> None:
        """Write one message, a line of JSON."""
        data = memoryview(json.dumps(message).encode("ascii") + b"\n")
        try:
            while data:
                data = data[self._writer.write(data):]
        except OSError as error:
            raise Closed from error

    def receive(self) -> dict:
        """The next message. Raises Closed at the end."""
        try:
            line = self._reader.readline(MAX_MESSAGE)
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError, RecursionError) as error:
            raise Closed from error
        if not isinstance(message, dict):
            raise Closed
        return message

    def ask(self, request: dict) -> dict:
        """The answer to a request; requests of the other side that come before it are answered."""
        self.send(request)
        while True:
            message = self.receive()
            if "do" not in message:
                return message
            self.send(self._serve(message))

    def loop(self) -> None:
        """Answer requests until the other side ends."""
        while True:
            self.send(self._serve(self.receive()))
