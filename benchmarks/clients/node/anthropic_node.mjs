// Anthropic's own JavaScript client.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { ASK, assertCity, check, checkThought, CITY, collect, KEY, MODEL, ROOT, SLOW_ROOT, TOO_LONG, versions } from "./checks.mjs";

const clientOf = (baseURL, apiKey = KEY) => new Anthropic({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const client = clientOf(ROOT);
const SHORT = { model: MODEL, messages: ASK, max_tokens: 60 };
const ROOMY = { ...SHORT, max_tokens: 600, thinking: { type: "disabled" } };
const TOOL = { name: "weather", description: "Of a city.", input_schema: CITY };
const NAMED = { type: "tool", name: "weather" };
const THINKING = { ...SHORT, max_tokens: 1600, thinking: { type: "enabled", budget_tokens: 1024 } };
const TOWN = { type: "object", properties: { rain: { type: "boolean" } }, required: ["rain"], additionalProperties: false };
const textOf = (message) => message.content.map((block) => block.text ?? "").join("");

versions("@anthropic-ai/sdk");
await check("chat: a message", async () => {
  const message = await client.messages.create({ ...SHORT, system: "Be brief." });
  assert(textOf(message).trim() && ["end_turn", "max_tokens"].includes(message.stop_reason) && message.usage.output_tokens > 0);
});
await check("chat: countTokens", async () => {
  const { usage } = await client.messages.create(SHORT); // what was read from the cache is counted apart
  const read = usage.input_tokens + (usage.cache_read_input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0);
  assert.equal((await client.messages.countTokens({ model: MODEL, messages: ASK })).input_tokens, read);
});
await check("chat: models", async () => assert((await collect(client.models.list())).some((one) => one.id === MODEL)));
await check("stream: a message", async () => {
  let text = "";
  const message = await client.messages.stream(SHORT).on("text", (piece) => { text += piece; }).finalMessage();
  assert(text.trim() && text === textOf(message) && message.usage.output_tokens > 0);
});
await check("tools: a call, and an answer to its result", async () => {
  const message = await client.messages.create({ ...ROOMY, tools: [TOOL], tool_choice: NAMED });
  const [call] = message.content.filter((block) => block.type === "tool_use");
  assert.equal(message.stop_reason, "tool_use");
  assertCity(call.input);
  const results = [{ type: "tool_result", tool_use_id: call.id, content: [{ type: "text", text: "sun" }] }];
  const messages = [...ASK, { role: "assistant", content: message.content }, { role: "user", content: results }];
  assert(textOf(await client.messages.create({ ...SHORT, messages, tools: [TOOL], tool_choice: { type: "none" } })).trim());
});
await check("tools: as a stream", async () => {
  const message = await client.messages.stream({ ...ROOMY, tools: [TOOL], tool_choice: NAMED }).finalMessage();
  assertCity(message.content.at(-1).input);
});
await check("structured: a schema in output_config", async () => {
  const message = await client.messages.parse({ ...ROOMY, output_config: { format: { type: "json_schema", schema: TOWN } } });
  assert.equal(typeof JSON.parse(textOf(message)).rain, "boolean");
});
await checkThought("blocks, whole and as a stream", async () => {
  for (const message of [await client.messages.create(THINKING), await client.messages.stream(THINKING).finalMessage()]) {
    // Random weights may think again in the middle of an answer.
    assert.deepEqual(message.content.map((block) => block.type).slice(0, 2), ["thinking", "text"]);
    assert(message.content[0].thinking.trim());
  }
});
await check("error: an unknown model", () =>
  assert.rejects(client.messages.create({ ...SHORT, model: "nobody" }), (error) => error instanceof Anthropic.NotFoundError && /not_found_error/.test(error.message)));
await check("error: a wrong key", () => assert.rejects(clientOf(ROOT, "sk-wrong").messages.create(SHORT), Anthropic.AuthenticationError));
await check("error: too long", () =>
  assert.rejects(client.messages.create({ ...SHORT, messages: [{ role: "user", content: TOO_LONG }] }),
    (error) => error instanceof Anthropic.BadRequestError && /prompt is too long/.test(error.message)));
await check("slow: a message", async () => assert(textOf(await clientOf(SLOW_ROOT).messages.stream({ ...SHORT, max_tokens: 8 }).finalMessage()).trim()));
