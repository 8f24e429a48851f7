"""`spoutnik serve`, altered so that what is rare happens at once.

    python altered_server.py slow|eager|brief MODEL DATA    (prints the line of `spoutnik serve --json`)

slow: the engine sleeps before each step, several times as long as a stream waits before it sends a ping: clients hear what
they hear of a long prompt or a full queue. eager: a model that may call a tool does so, answers when it has the result, and
comes to an end, as a trained one would; for clients that leave it the choice. brief: has a short context, so that thousands
of replies without a limit come to their end.
"""

import sys
import time
from pathlib import Path

from rich.console import Console

from spoutnik.commands.application import serve
from spoutnik.engine.core import EngineCore
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.catalog import EngineOptions
from spoutnik.generation.service import ServedModel
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.settings import Settings

PING, SILENCE = 0.1, 0.5  # seconds
BRIEF_CONTEXT = 128  # tokens of prompt and reply
END_BIAS = 5.0  # with the random model's even logits, an answer of some hundred tokens


def make_slow() -> None:
    step = EngineCore.step

    def slow_step(core: EngineCore):
        time.sleep(SILENCE)
        return step(core)

    EngineCore.step = slow_step


def make_eager() -> None:
    def eager_tools(request: ChatRequest) -> ToolSet:
        for tool in request.tools or ():
            tool["function"].setdefault("parameters", {})["additionalProperties"] = False  # else random weights never end
        call = request.tools and request.tool_choice in (None, "auto") and request.messages[-1].role != "tool"
        return ToolSet.parse(request.tools, "required" if call else request.tool_choice)

    params = ChatRequest.params

    def params_that_end(request: ChatRequest, served: ServedModel, **more) -> SamplingParams:
        request.logit_bias = request.logit_bias or dict.fromkeys(map(str, served.tokenizer.eos_ids), END_BIAS)
        return params(request, served, **more)

    ChatRequest.tool_set, ChatRequest.params = property(eager_tools), params_that_end


kind, model, data = sys.argv[1:]
{"slow": make_slow, "eager": make_eager, "brief": lambda: None}[kind]()
settings = Settings(port=0, data=Path(data), page=False, ping_seconds=PING if kind == "slow" else Settings.ping_seconds)
engine = EngineOptions(max_model_len=BRIEF_CONTEXT if kind == "brief" else None)
serve(model, None, engine, settings, Console(stderr=True), as_json=True)
