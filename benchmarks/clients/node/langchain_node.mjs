// LangChain's JavaScript ChatOpenAI and OpenAIEmbeddings.

import assert from "node:assert/strict";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import { assertCity, check, collect, EAGER_URL, KEY, MODEL, QUESTION, SLOW_URL, TOO_LONG, URL_, versions } from "./checks.mjs";

const City = z.object({ rain: z.boolean(), size: z.int().min(0).max(99), kind: z.enum(["small", "large"]) });
const chatOf = ({ url = URL_, apiKey = KEY, ...more } = {}) => new ChatOpenAI({
  configuration: { baseURL: url }, apiKey, model: MODEL, maxRetries: 0, timeout: 120_000, maxTokens: 600,
  modelKwargs: { max_thinking_tokens: 8 }, ...more,
});

versions("@langchain/openai", "@langchain/core");
await check("chat: invoke", async () => {
  const message = await chatOf().invoke(QUESTION);
  assert(message.text.trim() && message.usage_metadata.output_tokens > 0);
});
await check("chat: batch", async () => assert((await chatOf().batch(["Hi", "Why?"])).every((message) => message.text.trim())));
await check("chat: the Responses API", async () => assert((await chatOf({ useResponsesApi: true }).invoke(QUESTION)).text.trim()));
await check("chat: embeddings", async () => {
  const texts = new OpenAIEmbeddings({ configuration: { baseURL: URL_ }, apiKey: KEY, model: MODEL });
  assert.equal((await texts.embedDocuments(["one", "two"])).length, 2);
});
for (const [name, more] of [["chat", {}], ["the Responses API", { useResponsesApi: true }]]) {
  await check(`stream: ${name}`, async () => {
    const pieces = await collect(await chatOf(more).stream(QUESTION));
    const whole = pieces.reduce((left, right) => left.concat(right));
    assert(whole.text.trim() && pieces.length > 2 && whole.usage_metadata.output_tokens > 0);
  });
}
await check("tools: bindTools, and an answer to their results", async () => {
  const weather = tool(() => "sun", { name: "weather", description: "Of a city.", schema: City });
  const able = chatOf({ url: EAGER_URL }).bindTools([weather]);
  const question = new HumanMessage("Describe Oslo.");
  const called = await able.invoke([question]);
  assertCity(called.tool_calls[0].args);
  const results = await Promise.all(called.tool_calls.map((call) => weather.invoke(call)));
  assert(results[0] instanceof ToolMessage && (await able.invoke([question, called, ...results])).text.trim());
});
await check("tools: bindTools, as a stream", async () => {
  const able = chatOf().bindTools([{ type: "function", function: { name: "City", parameters: z.toJSONSchema(City) } }], { tool_choice: "City" });
  const pieces = await collect(await able.stream("Describe Oslo."));
  assertCity(pieces.reduce((left, right) => left.concat(right)).tool_calls[0].args);
});
for (const method of ["jsonSchema", "functionCalling"]) {
  await check(`structured: withStructuredOutput, ${method}`, async () => {
    assertCity(await chatOf().withStructuredOutput(City, { method, strict: true }).invoke("Describe Oslo."));
  });
}
const refused = (status) => (error) => error.status === status;
await check("error: an unknown model", () => assert.rejects(chatOf({ model: "nobody" }).invoke(QUESTION), refused(404)));
await check("error: a wrong key", () => assert.rejects(chatOf({ apiKey: "sk-wrong" }).invoke(QUESTION), refused(401)));
await check("error: too long", () => assert.rejects(chatOf().invoke(TOO_LONG), (error) => error.name === "ContextOverflowError" || error.status === 400));
await check("slow: chat", async () => {
  const pieces = await collect(await chatOf({ url: SLOW_URL, maxTokens: 8 }).stream(QUESTION));
  assert(pieces.map((piece) => piece.text).join("").trim());
});
