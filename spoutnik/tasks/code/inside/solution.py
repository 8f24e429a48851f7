"""The solution's process: defines what the solution defines and answers calls with plain data.

Nothing in here decides a verdict: whatever the solution does to this process, all it can send are values, and the tests compare
them elsewhere.
"""

import builtins
import itertools
import sys
import types

from . import program, wire

CHANGEABLE = (list, dict, set, bytearray)


class Callback:
    """A function of the tests that was given to the solution as an argument."""

    def __init__(self, peer: "Solution", number: int) -> None:
        self._peer, self._number = peer, number

    def __call__(self, *args: object) -> object:
        return self._peer.call_back(self, args)


class Solution:
    """The solution's namespace behind the channel."""

    def __init__(self, job: dict) -> None:
        self._peer = wire.Peer(job["channel"], self._answer, Callback, self)
        self._namespace: dict = {}
        self._source = program.source_of(job)

    def serve(self) -> None:
        program.forget_harness()
        namespace = program.module_of("solution")
        try:
            exec(compile(self._source, program.FILE_NAME, "exec", dont_inherit=True), namespace)
        except BaseException as error:  # leaving early included: the solution defines nothing then
            self._peer.send({"failed": f"{type(error).__name__}: {error}"[:1000]})
            raise
        self._namespace = namespace
        self._peer.send({"defined": True})
        self._peer.loop()

    def call_back(self, function: Callback, args: tuple) -> object:
        answer = self._peer.ask({"do": "call", "on": function._number, "args": [self._peer.encode(arg) for arg in args]})
        if "raised" in answer:
            raise getattr(builtins, answer["raised"], Exception)(answer["text"])
        return self._peer.decode(answer["value"])

    def _answer(self, request: dict) -> dict:
        try:
            return getattr(self, f"_do_{request['do']}")(request)
        except Exception as error:
            names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
            return {"raised": names, "text": str(error)[:10_000]}

    def _do_name(self, request: dict) -> dict:
        """What a global name of the solution stands for; without a name, the function that it defines last."""
        name = request["name"]
        if name is None:
            own = [key for key, value in self._namespace.items()
                   if isinstance(value, (types.FunctionType, type)) and value.__module__ == "solution"]
            if not own:
                return {"missing": True}
            name = own[-1]
        if name not in self._namespace:
            return {"missing": True}
        value = self._namespace[name]
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        return {"value": self._peer.encode(value)}

    def _do_call(self, request: dict) -> dict:
        function = self._peer.decode(request["on"])
        args = [self._peer.decode(arg) for arg in request["args"]]
        result = function(*args, **{key: self._peer.decode(value) for key, value in request["named"].items()})
        changed = []
        for index, arg in enumerate(args):
            if type(arg) in CHANGEABLE:
                now = self._peer.encode(arg)
                if now != request["args"][index]:
                    changed.append([index, now])
        return {"value": self._peer.encode(result), "changed": changed}

    def _do_get(self, request: dict) -> dict:
        return {"value": self._peer.encode(getattr(self._peer.decode(request["on"]), request["name"]))}

    def _do_set(self, request: dict) -> dict:
        setattr(self._peer.decode(request["on"]), request["name"], self._peer.decode(request["to"]))
        return {"value": None}

    def _do_item(self, request: dict) -> dict:
        return {"value": self._peer.encode(self._peer.decode(request["on"])[self._peer.decode(request["key"])])}

    def _do_length(self, request: dict) -> dict:
        return {"value": self._peer.encode(len(self._peer.decode(request["on"])))}

    def _do_iterate(self, request: dict) -> dict:
        return {"value": self._peer._keep(iter(self._peer.decode(request["on"])))}

    def _do_next(self, request: dict) -> dict:
        """A list of the next item of an iterator; empty at its end."""
        return {"value": [self._peer.encode(item) for item in itertools.islice(self._peer.decode(request["on"]), 1)]}


def serve(job: dict) -> None:
    """Answer until the tests end."""
    try:
        Solution(job).serve()
    except wire.Closed:
        sys.exit(0)
