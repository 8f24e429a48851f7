// Vercel's AI SDK: its providers for servers like OpenAI's, for OpenAI itself (Responses and chat), and for Anthropic's API.

import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { assertCity, check, checkThought, collect, EAGER_URL, KEY, MODEL, QUESTION, SLOW_URL, TOO_LONG, URL_, versions } from "./checks.mjs";

const PROVIDERS = {
  "openai-compatible": (baseURL, apiKey) => createOpenAICompatible({ name: "own", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true }),
  "openai chat": (baseURL, apiKey) => createOpenAI({ baseURL, apiKey }).chat,
  "openai responses": (baseURL, apiKey) => createOpenAI({ baseURL, apiKey }).responses,
  anthropic: (baseURL, authToken) => createAnthropic({ baseURL, authToken }),
};
const City = z.object({ rain: z.boolean(), size: z.number().int().min(0).max(99), kind: z.enum(["small", "large"]) });
const SHORT = { prompt: QUESTION, maxOutputTokens: 600, maxRetries: 0 };
const silent = { onError() {} }; // errors of a stream come through its parts

versions("ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai", "@ai-sdk/anthropic");
for (const [name, provider] of Object.entries(PROVIDERS)) {
  const model = (url = EAGER_URL, key = KEY, id = MODEL) => provider(url, key)(id);
  await check(`chat: ${name}`, async () => {
    const result = await generateText({ ...SHORT, model: model(), instructions: "Be brief." });
    assert(result.text.trim() && result.usage.outputTokens > 0);
  });
  await check(`stream: ${name}`, async () => {
    const result = streamText({ ...SHORT, ...silent, model: model() });
    assert((await collect(result.textStream)).join("").trim() && (await result.usage).outputTokens > 0);
  });
  for (const [kind, run] of [["", generateText], [", as a stream", (request) => streamText({ ...silent, ...request })]]) {
    await check(`tools: ${name}, and an answer to their results${kind}`, async () => {
      const called = [];
      const weather = tool({ description: "Of a city.", inputSchema: City, execute: (city) => { called.push(city); return "sun"; } });
      const result = await run({ ...SHORT, model: model(), tools: { weather }, stopWhen: stepCountIs(3) });
      assert((await result.text).trim() && called.length > 0);
      called.forEach(assertCity);
    });
  }
  await check(`structured: ${name}, an object`, async () => {
    assertCity((await generateText({ ...SHORT, model: model(), output: Output.object({ schema: City }) })).output);
  });
  await check(`structured: ${name}, a growing object`, async () => {
    const result = streamText({ ...SHORT, ...silent, model: model(), output: Output.object({ schema: City }) });
    await collect(result.partialOutputStream);
    assertCity(await result.output);
  });
  if (name !== "openai chat") await checkThought(`${name}, parts of their own`, async () => { // that API has no place for a thought
    const thinking = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } }, openai: { reasoningSummary: "auto", forceReasoning: true } };
    const result = await generateText({ ...SHORT, maxOutputTokens: 1600, model: model(), providerOptions: thinking });
    assert(result.reasoningText?.trim());
    const parts = await collect(streamText({ ...SHORT, maxOutputTokens: 1600, ...silent, model: model(), providerOptions: thinking }).fullStream);
    assert(parts.some((part) => part.type === "reasoning-delta" && part.text));
  });
  const refused = (status) => (error) => APICallError.isInstance(error) && error.statusCode === status;
  await check(`error: ${name}, an unknown model`, () => assert.rejects(generateText({ ...SHORT, model: model(URL_, KEY, "nobody") }), refused(404)));
  await check(`error: ${name}, a wrong key`, () => assert.rejects(generateText({ ...SHORT, model: model(URL_, "sk-wrong") }), refused(401)));
  await check(`error: ${name}, too long`, () => assert.rejects(generateText({ ...SHORT, model: model(), prompt: TOO_LONG }), refused(400)));
  await check(`slow: ${name}`, async () => {
    const parts = await collect(streamText({ ...SHORT, ...silent, maxOutputTokens: 8, model: model(SLOW_URL) }).fullStream);
    const failed = parts.find((part) => part.type === "error");
    if (failed) throw failed.error;
    assert(parts.some((part) => part.type === "text-delta" && part.text.trim()));
  });
}
await check("chat: openai-compatible, embeddings", async () => {
  const { embeddings } = await embedMany({ model: PROVIDERS["openai-compatible"](URL_, KEY).embeddingModel(MODEL), values: ["one", "two"] });
  assert.equal(embeddings.length, 2);
});
