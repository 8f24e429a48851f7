"""`/v1/models`, and their tokenizers."""

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field

from spoutnik.errors import hide_paths
from spoutnik.generation.options import GenerationOptions, render_chat
from spoutnik.generation.service import ServedModel
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.serve.api.chat_messages import Message
from spoutnik.serve.api.common import Body, State, encode_prompt, iso_time
from spoutnik.serve.api.fields import TOKENIZE_REFUSED, unknown_fields
from spoutnik.serve.api.logprobs import token_text
from spoutnik.serve.api.model_facts import model_meta
from spoutnik.serve.api.schemas import DetokenizeResponse, Model, ModelList, TokenizeResponse
from spoutnik.serve.errors import ApiError, error_responses
from spoutnik.serve.json_body import api_router

router = api_router()
tokens = api_router()


def describe(served: ServedModel, name: str) -> Model:
    return Model(id=name, object="model", created=served.created, owned_by="spoutnik",
                 root=served.id, parent=None if served.base is None else served.base.id, max_model_len=served.max_model_len,
                 context_length=served.max_model_len, about=hide_paths(served.about), meta=model_meta(served))


def describe_for_anthropic(served: ServedModel, name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": iso_time(served.created), "lifecycle": "active",
            "max_input_tokens": served.max_model_len, "max_tokens": served.max_model_len}


def from_anthropic_client(request: Request) -> bool:
    """Its lists of models have the same address and another form."""
    return "anthropic-version" in request.headers


@router.get("/models", responses=error_responses(401), response_model=ModelList)
@router.get("/models/", include_in_schema=False, response_model=ModelList)  # else it would be a model without a name
async def models(request: Request, serving: State) -> ModelList | Response:
    named = serving.names
    if from_anthropic_client(request):
        return JSONResponse({"data": [describe_for_anthropic(*one) for one in named], "has_more": False,
                             "first_id": named[0][1], "last_id": named[-1][1]})
    return ModelList(object="list", data=[describe(*one) for one in named])


@router.get("/models/{id:path}", responses=error_responses(400, 401, 404), response_model=Model)
async def model(id: str, request: Request, serving: State) -> Model | Response:
    served = serving.find_model(id)
    return JSONResponse(describe_for_anthropic(served, id)) if from_anthropic_client(request) else describe(served, id)


class TokenizeRequest(Body):
    model_config = ConfigDict(extra="allow")  # to see unsupported fields

    model: str | None = None
    prompt: str | None = Field(None, description="A text; or give messages.")
    content: str | None = Field(None, description="The same as prompt.")
    messages: list[Message] | None = Field(None, min_length=1)
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = Field(None, description="By default where the last message is the assistant's.")
    add_special_tokens: bool | None = Field(None, description="A text begins as the tokenizer begins texts.")
    add_special: bool | None = Field(None, description="The same as add_special_tokens.")
    parse_special: bool | None = Field(None, description="false: what looks like a special token is plain text.")
    return_token_strs: bool | None = None


@tokens.post("/tokenize", responses=error_responses(400, 401, 404, 413, 415))
def tokenize(body: TokenizeRequest, serving: State) -> TokenizeResponse:
    unknown_fields(body.model_extra, TOKENIZE_REFUSED)
    served = serving.find_model(body.model)
    text = body.one_of("prompt", "content")
    if (text is None) == (body.messages is None):
        raise ApiError(400, "prompt: give either a text or messages.", "prompt")
    if body.messages is not None:
        options = GenerationOptions(tools=ToolSet.parse(body.tools), variables=body.chat_template_kwargs or {},
                                    continue_final_message=body.continue_final_message,
                                    add_generation_prompt=body.add_generation_prompt)
        messages = [message.for_template for message in body.messages]
        ids = render_chat(served.tokenizer, messages, options, served.max_model_len).ids
    else:
        ids, _ = encode_prompt(served, text, body.one_of("add_special_tokens", "add_special") is not False,
                               body.parse_special is not False, served.max_model_len)
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
    config = {key: hide_paths(value) if isinstance(value, str) else value for key, value in tokenizer.config.items()}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **config, **tokenizer.special_tokens,
            "chat_template": tokenizer.chat_template}
