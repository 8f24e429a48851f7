"""`/v1/models`, and their tokenizers."""

from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from spoutnik.generation.service import ServedModel
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.serve.api.chat_messages import Message
from spoutnik.serve.api.common import Body, State, encode_prompt
from spoutnik.serve.api.logprobs import token_text
from spoutnik.serve.api.model_facts import context_length, model_meta
from spoutnik.serve.api.schemas import DetokenizeResponse, Model, ModelList, TokenizeResponse
from spoutnik.serve.errors import ApiError, error_responses
from spoutnik.serve.json_body import api_router

router = api_router()
tokens = api_router()


def describe(served: ServedModel) -> Model:
    return Model(id=served.id, object="model", created=served.created, owned_by="spoutnik",
                 max_model_len=served.max_model_len, context_length=served.max_model_len, about=served.about,
                 meta=model_meta(served))


def describe_for_anthropic(served: ServedModel) -> dict[str, Any]:
    created = datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z")
    return {"type": "model", "id": served.id, "display_name": served.id, "created_at": created, "lifecycle": "active",
            "max_input_tokens": context_length(served), "max_tokens": context_length(served)}


def from_anthropic_client(request: Request) -> bool:
    """Its lists of models have the same address and another form."""
    return "anthropic-version" in request.headers


@router.get("/models", responses=error_responses(401), response_model=ModelList)
@router.get("/models/", include_in_schema=False, response_model=ModelList)  # else it would be a model without a name
async def models(request: Request, serving: State) -> ModelList | Response:
    served = list(serving.service.models.values())
    if from_anthropic_client(request):
        return JSONResponse({"data": [describe_for_anthropic(one) for one in served], "has_more": False,
                             "first_id": served[0].id, "last_id": served[-1].id})
    return ModelList(object="list", data=[describe(one) for one in served])


@router.get("/models/{id:path}", responses=error_responses(400, 401, 404), response_model=Model)
async def model(id: str, request: Request, serving: State) -> Model | Response:
    served = serving.find_model(id)
    return JSONResponse(describe_for_anthropic(served)) if from_anthropic_client(request) else describe(served)


class TokenizeRequest(Body):
    model: str | None = None
    prompt: str | None = Field(None, description="A text; or give messages.")
    content: str | None = Field(None, description="The same as prompt.")
    messages: list[Message] | None = Field(None, min_length=1)
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    add_special_tokens: bool | None = Field(None, description="A text starts with the beginning of sentence.")
    parse_special: bool | None = Field(None, description="false: what looks like a special token is plain text.")
    return_token_strs: bool | None = None


@tokens.post("/tokenize", responses=error_responses(400, 401, 404, 413, 415))
def tokenize(body: TokenizeRequest, serving: State) -> TokenizeResponse:
    served = serving.find_model(body.model)
    text = body.one_of("prompt", "content")
    if (text is None) == (body.messages is None):
        raise ApiError(400, "prompt: give either a text or messages.", "prompt")
    if body.messages is not None:
        messages, tools = ToolSet.parse(body.tools).conversation(
            served.tokenizer, [message.for_template for message in body.messages])
        ids = served.tokenizer.chat_ids(messages, tools, variables=body.chat_template_kwargs,
                                        add_generation_prompt=body.add_generation_prompt is not False)
    else:
        ids, _ = encode_prompt(served.tokenizer, text, body.add_special_tokens is not False, body.parse_special is not False)
    strings = [token_text(served.tokenizer, token) for token in ids] if body.return_token_strs else None
    return TokenizeResponse(count=len(ids), max_model_len=served.max_model_len, tokens=ids, token_strs=strings)


class DetokenizeRequest(Body):
    model: str | None = None
    tokens: list[int]


@tokens.post("/detokenize", responses=error_responses(400, 401, 404, 413, 415))
def detokenize(body: DetokenizeRequest, serving: State) -> DetokenizeResponse:
    tokenizer = serving.find_model(body.model).tokenizer
    for token in body.tokens:
        if not 0 <= token < tokenizer.vocab_size:
            raise ApiError(400, f"tokens: {token} is none; they are 0 to {tokenizer.vocab_size - 1}.", "tokens")
    text = tokenizer.decode(body.tokens, keep_special=True)
    return DetokenizeResponse(prompt=text, content=text)


@tokens.get("/tokenizer_info", responses=error_responses(400, 401, 404))
def tokenizer_info(serving: State, model: str | None = None) -> dict:
    """tokenizer_config.json, with the special tokens and the template."""
    tokenizer = serving.find_model(model).tokenizer
    return {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer.config, **tokenizer.special_tokens,
            "chat_template": tokenizer.chat_template}
