// mcp_client.mjs URL [refused tool]: a session with the official SDK; tells what the agent saw, as JSON.
import { createRequire } from "node:module";
const require = createRequire(process.env.EPHOR_MODULES);
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");

const [url, refused] = process.argv.slice(2);
const client = new Client({ name: "test", version: "1" });
const transport = new StreamableHTTPClientTransport(new URL(url));
const told = {};
const attempt = async (name, call) => {
  const start = performance.now();
  try {
    const result = await call();
    told[name] = { isError: result.isError ?? false, text: result.content?.map((c) => c.text ?? "").join(" ").slice(0, 200) };
  } catch (error) {
    told[name] = { thrown: error.constructor.name, code: error.code, message: error.message.slice(0, 200) };
  }
  told[name].ms = performance.now() - start;
};
try {
  await client.connect(transport);
  told.session = Boolean(transport.sessionId);
  told.tools = (await client.listTools()).tools.map((t) => t.name);
  await attempt("echo", () => client.callTool({ name: "echo", arguments: { message: "hello" } }));
  if (refused) await attempt("refused", () => client.callTool({ name: refused, arguments: {} }));
  await attempt("sum", () => client.callTool({ name: "get-sum", arguments: { a: 20, b: 22 } }));
  let steps = 0;
  await attempt("long", () => client.callTool({ name: "trigger-long-running-operation", arguments: { duration: 1, steps: 4 } },
    undefined, { onprogress: () => steps++ }));
  told.progress = steps;
  await attempt("prompts", () => client.listPrompts());
  await attempt("again", () => client.callTool({ name: "echo", arguments: { message: "again" } }));
  await transport.terminateSession();
} catch (error) {
  told.fatal = `${error.constructor.name}: ${error.message}`;
}
console.log(JSON.stringify(told));
await client.close();
