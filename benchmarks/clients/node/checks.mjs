// What the scripts of this folder share: arguments, a shape to ask for, and one line of JSON for each check.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import assert from "node:assert/strict";

export const [URL_, KEY, MODEL] = process.argv.slice(2); // of the API with its /v1; an API key; a name of /v1/models
const root = (url) => url.replace(/\/v1$/, "");
export const SLOW_URL = process.env.SLOW_URL ?? URL_; // of a server that sends pings between any two tokens
export const EAGER_URL = process.env.EAGER_URL ?? URL_; // of a server whose model calls a tool wherever it may
export const [ROOT, SLOW_ROOT, EAGER_ROOT] = [URL_, SLOW_URL, EAGER_URL].map(root);
export const THINKS = process.env.THINKS !== "0"; // whether the model shows thoughts
export const QUESTION = "What is 12 + 30?";
export const ASK = [{ role: "user", content: QUESTION }];
export const TOO_LONG = "1 ".repeat(30_000);
export const CITY = {
  type: "object",
  properties: { rain: { type: "boolean" }, size: { type: "integer", minimum: 0, maximum: 99 }, kind: { enum: ["small", "large"] } },
  required: ["rain", "size", "kind"],
  additionalProperties: false,
};

export function assertCity(city) {
  assert.deepEqual(Object.keys(city).sort(), ["kind", "rain", "size"]);
  assert(typeof city.rain === "boolean" && Number.isInteger(city.size) && ["small", "large"].includes(city.kind));
}

export function versions(...names) {
  const require = createRequire(import.meta.url);
  const folder = (name) => require.resolve.paths(name).map((path) => `${path}/${name}/package.json`);
  const read = (name) => folder(name).flatMap((path) => {
    try { return [JSON.parse(readFileSync(path)).version]; } catch { return []; }
  })[0];
  const found = Object.fromEntries(names.map((name) => [`npm ${name}`, read(name)]));
  console.log(JSON.stringify({ versions: found }));
}

// name: its kind, a colon, and what is tried. What is thrown inside has failed, and the next check goes on.
export async function check(name, run) {
  try {
    await run();
    console.log(JSON.stringify({ check: name, passed: true }));
  } catch (error) {
    console.error(error);
    console.log(JSON.stringify({ check: name, passed: false, message: `${error.name}: ${error.message}`.slice(0, 500) }));
  }
}

export async function checkThought(name, run) {
  if (THINKS) await check(`thought: ${name}`, run);
  else console.log(JSON.stringify({ check: `thought: ${name}`, skipped: "the model does not think" }));
}

export async function collect(iterable) {
  const all = [];
  for await (const item of iterable) all.push(item);
  return all;
}
