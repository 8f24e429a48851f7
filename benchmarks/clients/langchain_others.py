"""LangChain's chat models for the APIs of Anthropic, Ollama and DeepSeek."""

import functools
import operator

import anthropic
import checks
import ollama
import openai
from checks import BRIEF_THOUGHT, EAGER_ROOT, KEY, MODEL, QUESTION, ROOT, SLOW_ROOT, TOO_LONG, City, check, refused, versions
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_deepseek import ChatDeepSeek
from langchain_ollama import ChatOllama, OllamaEmbeddings


def chat_anthropic(root: str = ROOT, key: str = KEY, model: str = MODEL, tokens: int = 600, **more) -> BaseChatModel:
    return ChatAnthropic(base_url=root, api_key=key, model=model, max_tokens=tokens, max_retries=0, timeout=120, **more)


def chat_ollama(root: str = ROOT, key: str = KEY, model: str = MODEL, tokens: int = 600, **more) -> BaseChatModel:
    headers = {"headers": {"Authorization": f"Bearer {key}"}, "timeout": 120}
    return ChatOllama(base_url=root, client_kwargs=headers, model=model, num_predict=tokens, **more)


def chat_deepseek(root: str = ROOT, key: str = KEY, model: str = MODEL, tokens: int = 600, **more) -> BaseChatModel:
    return ChatDeepSeek(api_base=f"{root}/v1", api_key=key, model=model, max_tokens=tokens, max_retries=0, timeout=120,
                        stream_usage=True, **{"extra_body": BRIEF_THOUGHT} | more)


APIS = {"anthropic": (chat_anthropic, anthropic), "ollama": (chat_ollama, ollama), "deepseek": (chat_deepseek, openai)}
THOUGHTFUL = {"anthropic": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "tokens": 1600},
              "ollama": {"reasoning": True}, "deepseek": {"extra_body": {}}}

versions(*(f"langchain-{api}" for api in APIS))
for api, (chat, errors) in APIS.items():
    with check(f"chat: {api}"):
        message = chat().invoke(QUESTION)
        assert message.text.strip() and message.usage_metadata["output_tokens"] > 0
    with check(f"stream: {api}"):
        message = functools.reduce(operator.add, chat().stream(QUESTION))
        assert message.text.strip() and message.usage_metadata["output_tokens"] > 0
    with check(f"tools: {api}, and an answer to their results"):
        able, question = chat(EAGER_ROOT).bind_tools([City]), HumanMessage("Describe Oslo.")
        for called in (able.invoke([question]), functools.reduce(operator.add, able.stream([question]))):
            assert called.tool_calls[0]["name"] == "City" and called.tool_calls[0]["args"]
            results = [ToolMessage("done", tool_call_id=call["id"]) for call in called.tool_calls]
            assert able.invoke([question, called, *results]).text.strip()
    with check(f"structured: {api}, with_structured_output"):
        assert isinstance(chat(EAGER_ROOT).with_structured_output(City).invoke("Describe Oslo."), City)
    with check(f"thought: {api}, a block of its own"):
        checks.needs_thought()
        message = chat(**THOUGHTFUL[api]).invoke(QUESTION)
        assert message.text.strip() and any(block["type"] == "reasoning" and block["reasoning"].strip()
                                            for block in message.content_blocks)
    unknown, denied, long = ((ollama.ResponseError,) * 3 if errors is ollama else
                             (errors.NotFoundError, errors.AuthenticationError, errors.BadRequestError))
    with check(f"error: {api}, an unknown model"), refused(unknown, "nobody"):
        chat(model="nobody").invoke(QUESTION)
    with check(f"error: {api}, a wrong key"), refused(denied, "API key"):
        chat(key="sk-wrong").invoke(QUESTION)
    with check(f"error: {api}, too long"), refused(long, "400"):
        chat().invoke(TOO_LONG)
    with check(f"slow: {api}"):
        assert "".join(piece.text for piece in chat(SLOW_ROOT, tokens=8).stream(QUESTION)).strip()
with check("chat: ollama, embeddings"):
    texts = OllamaEmbeddings(base_url=ROOT, client_kwargs={"headers": {"Authorization": f"Bearer {KEY}"}}, model=MODEL)
    assert len(texts.embed_documents(["one", "two"])) == 2
