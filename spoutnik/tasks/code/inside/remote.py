"""Stand-ins, in the tests' process, for what the solution defines in its own."""

import builtins
from typing import NoReturn

from . import wire

LOCAL_MODULES = {"math", "cmath", "sys", "re", "collections", "itertools", "functools", "operator", "string", "random", "copy",
                 "datetime", "decimal", "fractions", "heapq", "bisect", "statistics", "typing", "json", "time"}


class Refused(Exception):
    """The solution gave an object of its own where a test wants plain data."""


class Remote:
    """An object that stayed in the solution's process. It can be called, read and iterated; it equals nothing but itself and is
    neither true nor false, for it would be the solution that decides."""

    __hash__ = None

    def __init__(self, tests: "Tests", number: int) -> None:
        object.__setattr__(self, "_tests", tests)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: object, **named: object) -> object:
        return self._tests.call(self, args, named)

    def __getattr__(self, name: str) -> object:
        return self._tests.value("get", self, name=name)

    def __setattr__(self, name: str, value: object) -> None:
        self._tests.value("set", self, name=name, to=self._tests.peer.encode(value))

    def __getitem__(self, key: object) -> object:
        return self._tests.value("item", self, key=self._tests.peer.encode(key))

    def __len__(self) -> int:
        return self._tests.value("length", self)

    def __iter__(self):
        iterator = self._tests.value("iterate", self)
        if not isinstance(iterator, Remote):
            self._tests.fail("The solution's object is no iterator.")
        while items := self._tests.value("next", iterator):
            yield from items

    def __bool__(self) -> bool:
        self._tests.fail("The solution returned an object of its own, which is neither true nor false.")

    def _refuse(self, other: object) -> bool:
        self._tests.fail("The solution returned an object of its own, which is not compared.")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


class Tests:
    """One run of tests against the solution at the other end of the channel."""

    def __init__(self, channel: int) -> None:
        self.peer = wire.Peer(channel, self._answer, Remote, self)
        self.failure = ""  # once set, the tests have failed, whatever they catch
        self.calls = 0

    def fail(self, reason: str) -> NoReturn:
        self.failure = self.failure or reason
        raise Refused(reason)

    def request(self, action: str, **parts: object) -> dict:
        """The solution's answer to one request. An exception of its own is raised here as the nearest built-in one."""
        if self.failure:
            raise Refused(self.failure)
        try:
            answer = self.peer.ask({"do": action, **parts})
        except wire.Closed:
            self.fail("The solution ended before its tests did.")
        if "raised" in answer:
            kinds = (getattr(builtins, str(name), None) for name in answer["raised"])
            kind = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)), Exception)
            try:
                error = kind(answer.get("text"))
            except TypeError:  # UnicodeDecodeError wants five arguments
                error = Exception(answer.get("text"))
            raise error
        return answer

    def value(self, action: str, on: Remote, **parts: object) -> object:
        answer = self.request(action, on=self.peer.encode(on), **parts)
        return self._decode(answer.get("value"))

    def _decode(self, value: object) -> object:
        try:
            return self.peer.decode(value)
        except (ValueError, TypeError, KeyError, RecursionError):
            self.fail("The solution sent what is no value.")

    def call(self, function: Remote, args: tuple, named: dict) -> object:
        self.calls += 1
        answer = self.request("call", on=self.peer.encode(function), args=[self.peer.encode(arg) for arg in args],
                              named={key: self.peer.encode(value) for key, value in named.items()})
        for index, now in answer.get("changed", ()):
            _replace(args[index], self._decode(now))
        return self._decode(answer.get("value"))

    def name(self, name: str | None) -> tuple[bool, object]:
        """(Whether the solution defines it, its value or stand-in)."""
        answer = self.request("name", name=name)
        if answer.get("module") == name and name in LOCAL_MODULES:
            return True, __import__(name)  # our own copy: the solution's may be changed
        if "value" not in answer:
            return False, None
        return True, self._decode(answer["value"])

    def _answer(self, request: dict) -> dict:
        """A call of a function of the tests from the solution: calls are all that it may do."""
        try:
            if request["do"] != "call":
                raise TypeError("The tests' objects can only be called.")
            function = self.peer._find("ours", request["on"])
            if not callable(function):
                raise TypeError("This object of the tests cannot be called.")
            return {"value": self.peer.encode(function(*[self.peer.decode(arg) for arg in request["args"]]))}
        except Refused as error:
            self.failure = self.failure or str(error)
            return {"raised": "Exception", "text": ""}
        except Exception as error:
            return {"raised": type(error).__name__, "text": str(error)}


def _replace(mine: object, now: object) -> None:
    """A list, dict or set of the tests that the solution changed in place is changed here too."""
    if type(mine) is not type(now):
        return
    if isinstance(mine, (list, bytearray)):
        mine[:] = now
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(now)
