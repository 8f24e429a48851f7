"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

import asyncio
import functools
import operator

import openai
from checks import BRIEF_THOUGHT, KEY, MODEL, QUESTION, SLOW_URL, TOO_LONG, URL, City, check, needs_thought, refused, versions
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def chat(**more) -> ChatOpenAI:
    body = BRIEF_THOUGHT | more.pop("extra_body", {})
    return ChatOpenAI(**{"base_url": URL, "api_key": KEY, "model": MODEL, "max_retries": 0, "timeout": 120, "max_tokens": 600,
                         "seed": 1, "extra_body": body} | more)


def joined(pieces):
    return functools.reduce(operator.add, pieces)


versions("langchain-openai", "langchain-core")
with check("chat: invoke"):
    message = chat().invoke(QUESTION)
    assert message.content.strip() and message.usage_metadata["output_tokens"] > 0 and "<think>" not in message.content
with check("chat: ainvoke and abatch"):
    async def several():
        return [await chat().ainvoke("Hi"), *await chat().abatch(["Hi", "What is 3 + 4?", "Why?"])]
    assert all(one.content.strip() for one in asyncio.run(several()))
with check("chat: the Responses API"):
    result = chat(use_responses_api=True, seed=None).invoke(QUESTION)
    assert result.text.strip() and result.usage_metadata["output_tokens"] > 0
with check("chat: embeddings"):
    texts = OpenAIEmbeddings(base_url=URL, api_key=KEY, model=MODEL, check_embedding_ctx_length=False)
    assert len(texts.embed_documents(["one", "two"])) == 2 and texts.embed_query("one")
with check("stream: stream"):
    whole = joined(chat(stream_usage=True).stream(QUESTION))
    assert whole.content == message.content and whole.usage_metadata["total_tokens"] == message.usage_metadata["total_tokens"]
with check("stream: the Responses API"):
    assert "".join(piece.text for piece in chat(use_responses_api=True, seed=None).stream(QUESTION)).strip()
with check("tools: bind_tools, and an answer to their results"):
    able = chat().bind_tools([City], tool_choice="any", parallel_tool_calls=False, strict=True)
    question = HumanMessage("Describe Oslo.")
    called = able.invoke([question])
    assert called.tool_calls[0]["name"] == "City" and City.model_validate(called.tool_calls[0]["args"])
    results = [ToolMessage("done", tool_call_id=call["id"]) for call in called.tool_calls]
    assert chat().bind_tools([City], tool_choice="none").invoke([question, called, *results]).content.strip()
with check("tools: bind_tools, as a stream"):
    assert City.model_validate(joined(able.stream([question])).tool_calls[0]["args"])
for method in ("json_schema", "function_calling"):
    with check(f"{'structured' if method == 'json_schema' else 'tools'}: with_structured_output, {method}"):
        assert isinstance(chat().with_structured_output(City, method=method, strict=True).invoke("Describe Oslo."), City)
with check("structured: with_structured_output, with the raw message"):
    result = chat().with_structured_output(City, include_raw=True, strict=True).invoke("Describe Oslo.")
    assert result["parsing_error"] is None and isinstance(result["parsed"], City)
with check("thought: in the text (reasoning_format)"):
    needs_thought()
    message = chat(extra_body={"reasoning_format": "none"}).invoke(QUESTION).content
    assert message.startswith("<think>\n") and message.partition("</think>")[2].strip()
with check("error: an unknown model"), refused(openai.NotFoundError, "nobody"):
    chat(model="nobody").invoke(QUESTION)
with check("error: a wrong key"), refused(openai.AuthenticationError, "API key"):
    chat(api_key="sk-wrong").invoke(QUESTION)
with check("error: too long"), refused(openai.BadRequestError, "maximum context length"):
    chat().invoke(TOO_LONG)
with check("slow: stream"):
    assert "".join(piece.text for piece in chat(base_url=SLOW_URL, max_tokens=8).stream(QUESTION)).strip()
