// OpenAI's own JavaScript client.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ASK, check, checkThought, CITY, assertCity, collect, KEY, MODEL, QUESTION, SLOW_URL, TOO_LONG, URL_, versions } from "./checks.mjs";

const clientOf = (baseURL, apiKey = KEY) => new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const client = clientOf(URL_);
const SHORT = { model: MODEL, messages: ASK, max_tokens: 60, seed: 1 };
const ROOMY = { ...SHORT, max_tokens: 600, max_thinking_tokens: 8 };
const RESPONSES = { model: MODEL, input: QUESTION, max_output_tokens: 600, max_thinking_tokens: 8 };
const City = z.object({ rain: z.boolean(), size: z.int().min(0).max(99), kind: z.enum(["small", "large"]) });
const TOOL = { type: "function", function: { name: "weather", description: "Of a city.", parameters: CITY, strict: true } };
const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

versions("openai");
let reply;
await check("chat: models", async () => {
  assert((await collect(client.models.list())).some((one) => one.id === MODEL));
});
await check("chat: a reply", async () => {
  reply = await client.chat.completions.create(SHORT);
  assert(reply.choices[0].message.content.trim() && reply.usage.completion_tokens > 0);
});
await check("chat: responses", async () => assert((await client.responses.create(RESPONSES)).output_text.trim()));
await check("chat: embeddings", async () => {
  // The client asks for base64 by itself, and decodes it.
  const result = await client.embeddings.create({ model: MODEL, input: ["one", "two"] });
  assert(result.data.length === 2 && Math.abs(result.data[0].embedding[0]) < 10);
});
await check("stream: a reply", async () => {
  const chunks = await collect(await client.chat.completions.create({ ...SHORT, stream: true, stream_options: { include_usage: true } }));
  assert.equal(textOf(chunks), reply.choices[0].message.content);
  assert.equal(chunks.at(-1).usage.completion_tokens, reply.usage.completion_tokens);
});
await check("stream: chat.completions.stream", async () => {
  const stream = client.chat.completions.stream({ ...ROOMY, response_format: zodResponseFormat(City, "city") });
  assertCity((await stream.finalChatCompletion()).choices[0].message.parsed);
});
await check("stream: responses", async () => {
  const events = await collect(client.responses.stream(RESPONSES));
  assert(events.some((event) => event.type === "response.output_text.delta"));
  assert(["response.completed", "response.incomplete"].includes(events.at(-1).type));
});
await check("tools: a call, and an answer to its result", async () => {
  const tools = [zodFunction({ name: "weather", parameters: City })];
  const result = await client.chat.completions.parse({ ...ROOMY, tools, tool_choice: "required", parallel_tool_calls: false });
  const { message } = result.choices[0];
  assertCity(message.tool_calls[0].function.parsed_arguments);
  const messages = [...ASK, message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "sun" }];
  const more = await client.chat.completions.create({ ...SHORT, messages, tools, tool_choice: "none" });
  assert(more.choices[0].message.content.trim());
});
await check("tools: a named one, as a stream", async () => {
  const choice = { type: "function", function: { name: "weather" } };
  const { message } = (await client.chat.completions.stream({ ...ROOMY, tools: [TOOL], tool_choice: choice }).finalChatCompletion()).choices[0];
  assert.equal(message.tool_calls.length, 1);
  assertCity(JSON.parse(message.tool_calls[0].function.arguments));
});
await check("tools: runTools", async () => {
  const called = [];
  const tool = { ...TOOL, function: { ...TOOL.function, parse: JSON.parse, function: (city) => { called.push(city); return "sun"; } } };
  const choice = { type: "function", function: { name: "weather" } }; // a named tool is called once, then the runner ends
  await client.chat.completions.runTools({ ...ROOMY, tools: [tool], tool_choice: choice }).done();
  assert.equal(called.length, 1);
  assertCity(called[0]);
});
await check("structured: parse", async () => {
  const result = await client.chat.completions.parse({ ...ROOMY, response_format: zodResponseFormat(City, "city") });
  assertCity(result.choices[0].message.parsed);
});
await check("structured: responses.parse", async () => {
  assertCity((await client.responses.parse({ ...RESPONSES, text: { format: zodTextFormat(City, "city") } })).output_parsed);
});
await checkThought("reasoning_content, whole and as a stream", async () => {
  assert(reply.choices[0].message.reasoning_content.trim());
  const chunks = await collect(await client.chat.completions.create({ ...SHORT, stream: true }));
  assert(chunks.some((chunk) => chunk.choices[0].delta.reasoning_content));
});
await check("error: an unknown model", () =>
  assert.rejects(client.chat.completions.create({ ...SHORT, model: "nobody" }), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found"));
await check("error: a wrong key", () =>
  assert.rejects(clientOf(URL_, "sk-wrong").chat.completions.create(SHORT), (error) => error instanceof OpenAI.AuthenticationError && error.code === "invalid_api_key"));
await check("error: too long, as a stream", () =>
  assert.rejects(client.chat.completions.create({ ...SHORT, messages: [{ role: "user", content: TOO_LONG }], stream: true }),
    (error) => error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded"));
await check("slow: a reply", async () => {
  assert(textOf(await collect(await clientOf(SLOW_URL).chat.completions.create({ ...SHORT, max_tokens: 8, stream: true }))).trim());
});
await check("slow: responses", async () => {
  const events = await collect(clientOf(SLOW_URL).responses.stream({ model: MODEL, input: QUESTION, max_output_tokens: 8 }));
  assert(["response.completed", "response.incomplete"].includes(events.at(-1).type));
});
