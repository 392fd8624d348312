// The agent of the demo: the official MCP SDK, through ephor, to the official "everything" server. It knows nothing of ephor.
//
// It ends with 1 as soon as something it claims is not so.
import assert from "node:assert/strict";
import { performance } from "node:perf_hooks";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, delay = "300", calls = "40"] = process.argv.slice(2);
const client = new Client({ name: "ephor-demo", version: "1.0.0" });

const text = (result) => result.content.map((part) => part.text).join(" ");

async function timed(call) {
  const start = performance.now();
  const result = await call();
  return { result, ms: performance.now() - start };
}

await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const server = client.getServerVersion();
console.log(`connected to ${server.name} ${server.version}`);

const { tools } = await client.listTools();
console.log(`tools/list          ${tools.length} tools: ${tools.slice(0, 5).map((t) => t.name).join(", ")}, …`);
assert.ok(tools.some((t) => t.name === "echo"));
assert.ok(!tools.some((t) => t.name === "get-env"), "what may not be called isn't in the list");

const echo = () => client.callTool({ name: "echo", arguments: { message: "the kings rule by the law" } });
const allowed = await timed(echo);
assert.ok(!allowed.result.isError && text(allowed.result).includes("the kings rule by the law"));
console.log(`echo                allowed in ${allowed.ms.toFixed(1)} ms: "${text(allowed.result)}"`);

const refused = await timed(() => client.callTool({ name: "get-env", arguments: {} }));
assert.equal(refused.result.isError, true, "get-env must be refused");
assert.match(text(refused.result), /environment/);
assert.ok(!text(refused.result).includes("PATH="), "nothing of the environment got out");
console.log(`get-env             refused in ${refused.ms.toFixed(1)} ms: "${text(refused.result)}"`);

const again = await echo();
assert.ok(!again.isError, "the session goes on after a refusal");

const slowed = await timed(() => client.callTool({ name: "get-sum", arguments: { a: 2, b: 3 } }));
assert.match(text(slowed.result), /5/);
assert.ok(slowed.ms >= Number(delay), `get-sum took ${slowed.ms} ms, and chaos asked for ${delay}`);
console.log(`get-sum             slowed by chaos to ${slowed.ms.toFixed(0)} ms: "${text(slowed.result)}"`);

const times = [];
for (let i = 0; i < Number(calls); i++) times.push((await timed(echo)).ms);
times.sort((a, b) => a - b);
const p50 = times[Math.floor(times.length / 2)];
assert.ok(p50 < Number(delay), "only the tool of the experiment is slowed");
console.log(`echo × ${calls}           p50 ${p50.toFixed(1)} ms, slowest ${times.at(-1).toFixed(1)} ms, as the agent sees it`);
await client.close();
