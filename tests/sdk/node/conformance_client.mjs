// conformance_client.mjs URL: what the conformance suite asks of a client under test (MCP_CONFORMANCE_SCENARIO says which), by
// @modelcontextprotocol/client. With EPHOR_BIN and EPHOR_DIR set there is an ephor of its own between it and the suite's server.
import fs from "node:fs";
import net from "node:net";
import { spawn } from "node:child_process";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const revision = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? "2025-11-25";
let url = new URL(process.argv.at(-1)), proxy;

const freePort = () => new Promise((done) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => { const { port } = server.address(); server.close(() => done(port)); });
});
const accepts = (port) => new Promise((done) => {
  const socket = net.connect(port, "127.0.0.1", () => { socket.destroy(); done(true); }).on("error", () => done(false));
});

if (process.env.EPHOR_DIR) {
  const [port, admin, metrics] = [await freePort(), await freePort(), await freePort()];
  const file = `${process.env.EPHOR_DIR}/client-${port}.yaml`;
  fs.writeFileSync(file, JSON.stringify({ workers: 1, drain: { accept: "0s" }, admin: { bind: `127.0.0.1:${admin}`, metrics: `127.0.0.1:${metrics}` },
    listeners: [{ name: "outbound", bind: `127.0.0.1:${port}`, cluster: "suite" }],
    clusters: [{ name: "suite", endpoints: [`127.0.0.1:${url.port}`], protocol: "http/1.1" }] }));
  proxy = spawn(process.env.EPHOR_BIN, ["run", "-c", file], { stdio: "ignore" });
  while (!(await accepts(port))) await new Promise((done) => setTimeout(done, 10));
  url.port = port;
}

const client = new Client({ name: "conformance", version: "1" }, {
  capabilities: { elicitation: { form: { applyDefaults: true } }, sampling: {}, roots: {} },
  ...(revision >= "2026-07-28" && { versionNegotiation: { mode: { pin: revision } } }),
});
client.setRequestHandler("elicitation/create", () => ({ action: "accept", content: {} }));

// Something of the type that the schema wants.
const value = (schema) => ({ string: "text", number: 3, integer: 3, boolean: true, array: [], object: {} })[schema.type] ?? "text";

try {
  await client.connect(new StreamableHTTPClientTransport(url));
  const { tools } = await client.listTools();
  for (const call of context.toolCalls ?? tools.map((tool) => ({ name: tool.name, arguments: Object.fromEntries(
    Object.entries(tool.inputSchema.properties ?? {}).map(([name, schema]) => [name, value(schema)])) })))
    await client.callTool(call).catch((error) => console.error(`${call.name}: ${error.message}`));
  if (client.getServerCapabilities()?.prompts)
    for (const prompt of (await client.listPrompts()).prompts) await client.getPrompt({ name: prompt.name }).catch(() => {});
  if (client.getServerCapabilities()?.resources)
    for (const resource of (await client.listResources()).resources) await client.readResource({ uri: resource.uri }).catch(() => {});
  await client.close();
} catch (error) {
  console.error(`${scenario}: ${error.message}`);
} finally {
  proxy?.kill();
}
process.exit(0);
