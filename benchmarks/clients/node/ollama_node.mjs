// Ollama's own JavaScript client.

import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { ASK, assertCity, check, checkThought, CITY, collect, EAGER_ROOT, KEY, MODEL, QUESTION, ROOT, SLOW_ROOT, TOO_LONG, versions } from "./checks.mjs";

const clientOf = (host, key = KEY) => new Ollama({ host, headers: { Authorization: `Bearer ${key}` } });
const client = clientOf(ROOT);
const SHORT = { model: MODEL, messages: ASK, options: { num_predict: 60, seed: 1, temperature: 0 } };
const ROOMY = { ...SHORT, options: { num_predict: 600, seed: 1 }, think: false };
const PARAMETERS = { type: "object", properties: { place: { type: "string", enum: ["Oslo", "Rome"] } }, required: ["place"] };
const TOOL = { type: "function", function: { name: "weather", description: "Of a place.", parameters: PARAMETERS } };

versions("ollama");
await check("chat: version, list and show", async () => {
  assert((await client.version()).version);
  assert((await client.list()).models.some((one) => one.model.startsWith(MODEL)));
  assert((await client.show({ model: MODEL })).capabilities.includes("completion"));
});
await check("chat: a reply", async () => {
  const reply = await client.chat(SHORT);
  assert(reply.message.content.trim() && reply.done && reply.eval_count > 0);
});
await check("chat: generate", async () => assert((await client.generate({ model: MODEL, prompt: QUESTION, options: SHORT.options })).response.trim()));
await check("chat: embed", async () => assert.equal((await client.embed({ model: MODEL, input: ["one", "two"] })).embeddings.length, 2));
await check("stream: a reply", async () => {
  const pieces = await collect(await client.chat({ ...SHORT, stream: true }));
  assert.equal(pieces.map((piece) => piece.message.content).join(""), (await client.chat(SHORT)).message.content);
  assert(pieces.at(-1).done && pieces.at(-1).eval_count > 0);
});
await check("stream: generate", async () => {
  const pieces = await collect(await client.generate({ model: MODEL, prompt: QUESTION, options: SHORT.options, stream: true }));
  assert(pieces.map((piece) => piece.response).join("").trim() && pieces.at(-1).done);
});
await check("tools: a call, and an answer to its result", async () => {
  const { message } = await clientOf(EAGER_ROOT).chat({ ...ROOMY, tools: [TOOL] });
  assert(["Oslo", "Rome"].includes(message.tool_calls[0].function.arguments.place));
  const messages = [...ASK, message, { role: "tool", tool_name: "weather", content: "sun" }];
  assert((await client.chat({ ...SHORT, messages, tools: [TOOL] })).message.content.trim());
});
await check("structured: a schema as format", async () => assertCity(JSON.parse((await client.chat({ ...ROOMY, format: CITY })).message.content)));
await checkThought("apart, on and off", async () => {
  assert((await client.chat({ ...SHORT, think: true })).message.thinking.trim());
  assert(!(await client.chat({ ...SHORT, think: false })).message.thinking);
});
const refused = (status, text) => (error) => error.name === "ResponseError" && error.status_code === status && text.test(error.message);
await check("error: an unknown model", () => assert.rejects(client.chat({ ...SHORT, model: "nobody" }), refused(404, /nobody/)));
await check("error: a wrong key", () => assert.rejects(clientOf(ROOT, "sk-wrong").chat(SHORT), refused(401, /API key/)));
await check("error: too long", () => assert.rejects(client.chat({ ...SHORT, messages: [{ role: "user", content: TOO_LONG }] }), refused(400, /maximum context length/)));
await check("slow: a reply", async () => {
  const pieces = await collect(await clientOf(SLOW_ROOT).chat({ ...SHORT, options: { num_predict: 8 }, stream: true }));
  assert(pieces.map((piece) => piece.message.content).join("").trim());
});
