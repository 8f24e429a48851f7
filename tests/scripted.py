"""A service whose models reply what a test wrote, so that pages can be looked at without chance."""

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import count

from spoutnik.generation.delta import CollectedReply, Delta, GenerationWarning
from spoutnik.generation.generation import Steering
from spoutnik.generation.options import GenerationPlan
from spoutnik.generation.service import GenerationService, ServedModel

THOUGHT = "First I look at the roots.\n\nThe sum is $-b/a$, the product is $c/a$."
ANSWER = r"""The roots are

$$x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$$

so with \(a = 1\) there are **two**. <img src=x onerror="document.title='broken'"><script>document.title='broken'</script>

```python
def roots(b, c):
    return (-b + (b * b - 4 * c) ** 0.5) / 2
```

| b | c |
|---|---|
| 3 | 2 |

![a picture](http://elsewhere.example/pixel.png)"""


class ScriptedService(GenerationService):
    """reply: the thought and the answer of the n-th reply, counted from 0. held: a thought stops at its middle until somebody
    steers, or `go` is set."""

    def __init__(self, served: list[ServedModel], load, reply=lambda number: (THOUGHT, ANSWER), held: bool = False):
        super().__init__(served, load)
        self.reply, self.held, self.go, self.started = reply, held, asyncio.Event(), []
        self._numbers = count()

    def generate(self, served: ServedModel, plan: GenerationPlan, name: str | None = None,
                 job: type | None = None) -> "ScriptedHandle":
        handle = ScriptedHandle(self, served, plan, name or f"reply-{len(self.started)}")
        self.active[handle.name] = handle
        self.started.append(handle)
        return handle

    def next_reply(self) -> tuple[str, str]:
        return self.reply(next(self._numbers))


class ScriptedHandle(Steering):
    def __init__(self, service: ScriptedService, served: ServedModel, plan: GenerationPlan, name: str):
        self.service, self.served, self.plan, self.name = service, served, plan, name
        self.replies = [CollectedReply() for _ in range(plan.params.n)]
        self.inserted: list[str] = []
        self.paused = self.aborted = self.cut = False
        self._go = asyncio.Event()  # this one alone

    async def __aenter__(self) -> "ScriptedHandle":
        return self

    async def __aexit__(self, *_) -> None:
        self.abort()

    async def __aiter__(self) -> AsyncIterator[list[Delta]]:
        async for deltas in self._script():
            for delta in deltas:
                self.replies[delta.index].add(delta)
            yield deltas

    async def _script(self) -> AsyncIterator[list[Delta]]:
        for index in range(self.plan.params.n):
            thought, answer = self.service.next_reply()
            if self.plan.max_thinking_tokens:
                middle = math.ceil(len(thought) / 2)
                yield [Delta(index, thought=thought[:middle], thinking=True, thought_tokens=10, generated=10)]
                if self.service.held:
                    gates = [asyncio.create_task(gate.wait()) for gate in (self._go, self.service.go)]
                    try:
                        await asyncio.wait(gates, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for gate in gates:
                            gate.cancel()
                for text in self.inserted:
                    yield [Delta(index, thought=text, thinking=True, thought_tokens=20, generated=20)]
                if self.cut:
                    yield [Delta(index, thought_tokens=20, generated=20, warnings=[GenerationWarning("thought_budget", 20)])]
                else:
                    yield [Delta(index, thought=thought[middle:], thought_tokens=30, generated=30)]
            for place in range(0, len(answer), 40):
                yield [Delta(index, answer=answer[place:place + 40], thought_tokens=30, generated=40 + place)]
            yield [Delta(index, finish_reason="stop", thought_tokens=30, generated=40 + len(answer))]
        self.service.active.pop(self.name, None)

    async def end_thought(self) -> None:
        self.cut = True
        self._go.set()

    async def insert(self, text: str) -> None:
        self.inserted.append(text)

    async def pause(self) -> None:
        self.paused = True

    async def resume(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = self.service.active.pop(self.name, None) is not None


def scripted_service(make_service):
    """Makes services with the models of `make_service` and scripted replies. Changes are those of ScriptedService."""
    def make(names=("one", "two"), **changes) -> ScriptedService:
        plain = make_service(names)
        return ScriptedService(list(plain.models.values()), plain._load, **changes)

    return make
