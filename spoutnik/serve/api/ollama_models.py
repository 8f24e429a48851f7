"""Ollama's endpoints about models (`/api/tags`, `/api/show`, `/api/ps`), its version and its embeddings."""

import hashlib
import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AliasChoices, Field

from spoutnik.engine.generation_config import generation_defaults
from spoutnik.generation.service import ServedModel
from spoutnik.serve.api.common import Body, State, iso_time
from spoutnik.serve.api.embeddings import embed_inputs
from spoutnik.serve.api.model_facts import capabilities, count_parameters, model_config, precision, weights_size
from spoutnik.serve.api.ollama import OllamaRoute, ollama_errors, ollama_name
from spoutnik.serve.api.schemas import Schema
from spoutnik.serve.errors import GENERATION_ERRORS, ApiError
from spoutnik.serve.sse import cancel_on_disconnect

router = APIRouter(route_class=OllamaRoute)
# Of Ollama, whose requests are understood here. Clients compare it with the oldest that they can use.
API_VERSION = "0.12.11"
NAMES = {"repetition_penalty": "repeat_penalty"}  # of generation defaults, as Ollama calls them


class Details(Schema):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(Schema):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[str]


class ListedModels(Schema):
    models: list[ListedModel]


class RunningModel(Schema):
    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class RunningModels(Schema):
    models: list[RunningModel]


class ShownModel(Schema):
    license: str
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Version(Schema):
    version: str


class Embeddings(Schema):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OneEmbedding(Schema):
    embedding: list[float]


class Progress(Schema):
    status: Literal["success"]


class ModelRequest(Body):
    model: str = Field(validation_alias=AliasChoices("model", "name"))


class PullRequest(ModelRequest):
    stream: bool | None = None


class EmbedRequest(Body):
    model: str | None = None
    input: str | list[str]
    truncate: bool | None = Field(None, description="false: a text that is too long is refused; else its end is cut off.")
    dimensions: int | None = None


class OldEmbedRequest(Body):
    model: str | None = None
    prompt: str


@router.head("/version", include_in_schema=False)
@router.get("/version", responses=ollama_errors(401))
async def version() -> Version:
    return Version(version=API_VERSION)


@router.head("/tags", include_in_schema=False)
@router.get("/tags", responses=ollama_errors(401))
def tags(serving: State) -> ListedModels:
    return ListedModels(models=[ListedModel(
        **_name(name), modified_at=iso_time(served.created), size=weights_size(served.folder), digest=_digest(served),
        details=_details(served), capabilities=capabilities(served)) for served, name in serving.names])


@router.get("/ps", responses=ollama_errors(401))
def running(serving: State) -> RunningModels:
    """Models stay loaded: their time ends tomorrow, every day."""
    loaded = [served for served in serving.service.models.values() if served.llm is not None]
    return RunningModels(models=[RunningModel(
        **_name(served.id), size=weights_size(served.folder), digest=_digest(served), details=_details(served),
        expires_at=iso_time(time.time() + 86400), size_vram=_video_memory(served),
        context_length=served.max_model_len) for served in loaded])


@router.post("/show", responses=ollama_errors(400, 401, 404, 413, 415))
def show(body: ModelRequest, serving: State) -> ShownModel:
    served = serving.find_model(body.model)
    defaults = {NAMES.get(name, name): value for name, value in generation_defaults(served.folder).items()}
    license_text = next((path.read_text("utf-8", "replace") for path in sorted(served.folder.glob("LICENSE*"))), "")
    return ShownModel(
        license=license_text, modelfile=f"FROM {ollama_name(served.id)}\n", details=_details(served),
        parameters="\n".join(f"{name:<30} {value}" for name, value in defaults.items()),
        template=served.tokenizer.chat_template or "", model_info=_model_info(served),
        capabilities=capabilities(served), modified_at=iso_time(served.created))


@router.post("/pull", responses=ollama_errors(400, 401, 404, 413, 415))
def pull(body: PullRequest, serving: State) -> Progress:
    """What is served is here already; nothing else is fetched for a client. Of a stream, it is the only line."""
    serving.find_model(body.model)
    return Progress(status="success")


@router.post("/embed", responses=ollama_errors(*GENERATION_ERRORS), response_model=Embeddings)
async def embed(body: EmbedRequest, request: Request, serving: State) -> Response:
    if body.dimensions is not None:
        raise ApiError(400, "dimensions: this model's vectors cannot be shortened. Leave it out.", "dimensions")
    began = time.perf_counter_ns()
    served = await serving.model(body.model)
    load = time.perf_counter_ns() - began
    vectors, count = await cancel_on_disconnect(
        request.receive, embed_inputs(body.input, served, serving, truncate=body.truncate is not False))
    result = Embeddings(model=body.model or served.id, embeddings=[vector.tolist() for vector in vectors],
                        total_duration=time.perf_counter_ns() - began, load_duration=load, prompt_eval_count=count)
    return JSONResponse(result.model_dump())


@router.post("/embeddings", responses=ollama_errors(*GENERATION_ERRORS), response_model=OneEmbedding)
async def embeddings(body: OldEmbedRequest, request: Request, serving: State) -> Response:
    served = await serving.model(body.model)
    vectors, _ = await cancel_on_disconnect(request.receive, embed_inputs(body.prompt, served, serving, truncate=True))
    return JSONResponse({"embedding": vectors[0].tolist()})


def _name(name: str) -> dict[str, str]:
    return {"name": ollama_name(name), "model": ollama_name(name)}


def _digest(served: ServedModel) -> str:
    """Another one for another model. (That of the weights would take minutes to compute.)"""
    return hashlib.sha256(f"{served.id} {served.created} {weights_size(served.folder)}".encode()).hexdigest()


def _details(served: ServedModel) -> Details:
    config = model_config(served)
    family = config.model_type if config else ""
    return Details(parent_model="", format="safetensors", family=family, families=[family] if family else [],
                   parameter_size=_human(count_parameters(config)) if config else "",
                   quantization_level=precision(served.folder))


def _human(count: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return str(count)


def _video_memory(served: ServedModel) -> int:
    runner = served.llm.core.runner
    return 0 if runner.device.type == "cpu" else runner.weights_nbytes


def _model_info(served: ServedModel) -> dict[str, Any]:
    """GGUF's names. The context is the one that requests are held to."""
    config = model_config(served)
    if config is None:
        return {"general.basename": served.id}
    kind = config.model_type
    return {"general.architecture": kind, "general.basename": served.id, "general.parameter_count": count_parameters(config),
            f"{kind}.context_length": served.max_model_len, f"{kind}.embedding_length": config.hidden_size,
            f"{kind}.block_count": config.num_hidden_layers, f"{kind}.attention.head_count": config.num_attention_heads,
            f"{kind}.attention.head_count_kv": config.num_key_value_heads, f"{kind}.vocab_size": config.vocab_size}
