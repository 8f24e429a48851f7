"""llama.cpp's endpoints about the server: `/props`, `/slots`, `/apply-template`. Its tools ask them for the context and the
template."""

from typing import Any

from pydantic import Field

from spoutnik.engine.generation_config import generation_defaults
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.conversation import ConversationRenderer
from spoutnik.generation.service import ServedModel
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.serve.api.chat_messages import Message
from spoutnik.serve.api.common import FINGERPRINT, Body, Serving, State
from spoutnik.serve.api.schemas import Schema
from spoutnik.serve.errors import error_responses
from spoutnik.serve.json_body import api_router

router = api_router()


class Modalities(Schema):
    vision: bool
    audio: bool


class Slot(Schema):
    """A place for a reply: any of them may become any of these."""

    id: int
    n_ctx: int
    is_processing: bool


class GenerationSettings(Slot):
    params: dict[str, Any]


class Props(Schema):
    default_generation_settings: GenerationSettings
    total_slots: int
    model_alias: str
    model_path: str
    chat_template: str
    chat_template_caps: dict[str, bool]
    bos_token: str
    eos_token: str
    modalities: Modalities
    build_info: str
    is_sleeping: bool


class Prompt(Schema):
    prompt: str


class TemplateRequest(Body):
    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


@router.get("/props", responses=error_responses(401, 404))
async def props(serving: State, model: str | None = None) -> Props:
    """model_path is the model's name: where it lies concerns nobody."""
    served = serving.find_model(model)
    special = served.tokenizer.special_tokens
    settings = GenerationSettings(id=0, n_ctx=served.max_model_len, is_processing=bool(serving.service.active),
                                  params=_default_params(served))
    return Props(
        default_generation_settings=settings, total_slots=_slots(served), model_alias=served.id, model_path=served.id,
        chat_template=served.tokenizer.chat_template or "", bos_token=special.get("bos_token") or "",
        eos_token=special.get("eos_token") or "", modalities={"vision": False, "audio": False}, build_info=FINGERPRINT,
        chat_template_caps={"supports_tools": True, "supports_tool_calls": True, "supports_parallel_tool_calls": True,
                            "supports_system_role": True}, is_sleeping=False)


@router.get("/slots", responses=error_responses(401, 404))
async def slots(serving: State, model: str | None = None) -> list[Slot]:
    served = serving.find_model(model)
    busy = _active(serving, served)
    return [Slot(id=number, n_ctx=served.max_model_len, is_processing=number < busy) for number in range(_slots(served))]


@router.post("/apply-template", responses=error_responses(400, 401, 404, 413, 415))
def apply_template(body: TemplateRequest, serving: State) -> Prompt:
    tokenizer = serving.find_model(body.model).tokenizer
    renderer = ConversationRenderer(tokenizer, ToolSet.parse(body.tools), None, body.chat_template_kwargs or {})
    return Prompt(prompt=renderer.text([message.for_template for message in body.messages]))


def _slots(served: ServedModel) -> int:
    """Replies that are computed at the same time; one before the model is loaded."""
    return 1 if served.llm is None else served.llm.core.scheduler.max_num_seqs


def _active(serving: Serving, served: ServedModel) -> int:
    return sum(len(handle.replies) for handle in serving.service.active.values() if handle.served is served)


def _default_params(served: ServedModel) -> dict[str, Any]:
    """Under llama.cpp's names."""
    params = SamplingParams(**generation_defaults(served.folder))
    return {"n_predict": -1, "max_tokens": -1, "seed": -1, "temperature": params.temperature, "top_k": params.top_k,
            "top_p": params.top_p, "min_p": params.min_p, "repeat_penalty": params.repetition_penalty, "repeat_last_n": -1,
            "presence_penalty": params.presence_penalty, "frequency_penalty": params.frequency_penalty, "stop": [],
            "stream": False}
