// mcp_client.mjs SDK URL [sse]: one client of `SDK` (sdk, sdk-1.20, sdk-1.10, client, client-2026; sse: by 2024-11-05's transport) that does allowed and refused
// things in turns; a line of JSON for each.
const [sdk, url, old] = process.argv.slice(2);

async function connect() {
  const told = { name: "test", version: "1" }, to = new URL(url);
  if (sdk.startsWith("client")) {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const client = new Client(told, sdk === "client-2026" ? { versionNegotiation: { mode: { pin: "2026-07-28" } } } : {});
    await client.connect(new StreamableHTTPClientTransport(to));
    return [client, (params, options) => client.callTool(params, options)];
  }
  const { Client } = await import(`@modelcontextprotocol/${sdk}/client/index.js`);
  const { StreamableHTTPClientTransport } = await import(`@modelcontextprotocol/${sdk}/client/streamableHttp.js`);
  const client = new Client(told);
  const { SSEClientTransport } = await import(`@modelcontextprotocol/${sdk}/client/sse.js`);
  await client.connect(old ? new SSEClientTransport(to) : new StreamableHTTPClientTransport(to));
  return [client, (params, options) => client.callTool(params, undefined, options)];
}

async function step(name, call) {
  const start = performance.now();
  let told;
  try {
    const value = await call();
    told = { value };
  } catch (error) {
    told = { thrown: error.constructor.name, code: error.code, message: error.message, data: error.data };
  }
  console.log(JSON.stringify({ step: name, ms: performance.now() - start, ...told }));
}

const [client, callTool] = await connect();
const names = (list) => list.map((entry) => entry.name);
const echo = (message) => callTool({ name: "echo", arguments: { message } });
await step("tools", async () => names((await client.listTools()).tools));
await step("prompts", async () => names((await client.listPrompts()).prompts));
await step("resources", async () => (await client.listResources()).resources.map((r) => r.uri));
await step("echo", () => echo("hello"));
await step("shell", () => callTool({ name: "shell", arguments: { command: "ls" } }));
await step("echo after shell", () => echo("again"));
const progress = [];
await step("count", () => callTool({ name: "count", arguments: { to: 3 } }, { onprogress: (p) => progress.push(p.progress) }));
await step("progress", () => progress);
await step("greeting", () => client.getPrompt({ name: "greeting" }));
await step("secret-prompt", () => client.getPrompt({ name: "secret-prompt" }));
await step("echo after secret-prompt", () => echo("after the prompt"));
await step("public", () => client.readResource({ uri: "note://public" }));
await step("secret", () => client.readResource({ uri: "note://secret" }));
await step("echo after secret", () => echo("at last"));
await client.close();
