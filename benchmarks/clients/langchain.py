"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

import asyncio
from typing import Literal

from checks import KEY, MODEL, URL, check, versions
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field


class City(BaseModel):
    """What a city is like."""

    rain: bool
    size: int = Field(ge=0, le=99)
    kind: Literal["small", "large"]


def chat(**more) -> ChatOpenAI:
    body = {"max_thinking_tokens": 8} | more.pop("extra_body", {})
    return ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, max_retries=0, timeout=120,
                      **{"max_tokens": 600, "seed": 1, "extra_body": body} | more)


versions("langchain-openai", "langchain-core")
with check("invoke"):
    message = chat().invoke("What is 12 + 30?")
    assert message.content.strip() and message.usage_metadata["output_tokens"] > 0 and "<think>" not in message.content
with check("stream"):
    pieces = list(chat(stream_usage=True).stream("What is 12 + 30?"))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.content == message.content and whole.usage_metadata["total_tokens"] == message.usage_metadata["total_tokens"]
with check("ainvoke and abatch"):
    async def several():
        return [await chat().ainvoke("Hi"), *await chat().abatch(["Hi", "What is 3 + 4?", "Why?"])]
    assert all(one.content.strip() for one in asyncio.run(several()))
for method in ("json_schema", "function_calling"):
    with check(f"with_structured_output, {method}"):
        # Strict: where more properties may follow, random weights never end.
        assert isinstance(chat().with_structured_output(City, method=method, strict=True).invoke("Describe Oslo."), City)
with check("with_structured_output, with the raw message"):
    result = chat().with_structured_output(City, include_raw=True, strict=True).invoke("Describe Oslo.")
    assert result["parsing_error"] is None and isinstance(result["parsed"], City)
with check("bind_tools, and an answer to their results"):
    able = chat().bind_tools([City], tool_choice="any", parallel_tool_calls=False, strict=True)
    question = HumanMessage("Describe Oslo.")
    called = able.invoke([question])
    assert called.tool_calls[0]["name"] == "City" and City.model_validate(called.tool_calls[0]["args"])
    results = [ToolMessage("done", tool_call_id=call["id"]) for call in called.tool_calls]
    assert chat().bind_tools([City], tool_choice="none").invoke([question, called, *results]).content.strip()
with check("bind_tools, as a stream"):
    pieces = list(able.stream([question]))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert City.model_validate(whole.tool_calls[0]["args"])
with check("the thought in the text (reasoning_format)"):
    message = chat(extra_body={"reasoning_format": "none"}).invoke("What is 12 + 30?").content
    assert message.startswith("<think>\n") and message.partition("</think>")[2].strip()
with check("the Responses API"):
    result = chat(use_responses_api=True, seed=None).invoke("What is 12 + 30?")
    assert result.text.strip() and result.usage_metadata["output_tokens"] > 0
    assert "".join(piece.text for piece in chat(use_responses_api=True, seed=None).stream("What is 12 + 30?")).strip()
with check("embeddings"):
    texts = OpenAIEmbeddings(base_url=URL, api_key=KEY, model=MODEL, check_embedding_ctx_length=False)
    assert len(texts.embed_documents(["one", "two"])) == 2 and texts.embed_query("one")
