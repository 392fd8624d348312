// mcp_server.mjs PORT legacy|modern|separate json|sse [FILE]: tools, prompts and resources of which the tests' policies refuse some.
// legacy: @modelcontextprotocol/sdk with sessions; modern: @modelcontextprotocol/server, both revisions, no session.
// separate: the transport of 2024-11-05, GET /mcp and POST /messages.
// FILE says what the tool echo says of itself.
// Prints a line for each tool that ran, so that a test can see that a refused one didn't.
import fs from "node:fs";
import http from "node:http";
import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import { z } from "zod";

const [port, era, mode, described] = process.argv.slice(2);

// The two generations of McpServer differ in how an input's schema is given, and in how a tool sends a notification.
function fill(server, schema, notify) {
  const tool = (name, description, input, run) =>
    server.registerTool(name, { description, inputSchema: schema(input) }, (args, extra) => {
      console.log(`ran ${name}`);
      return run(args, extra);
    });
  const say = (text) => ({ content: [{ type: "text", text }] });
  tool("echo", described ? fs.readFileSync(described, "utf8") : "Says it again.", { message: z.string() }, ({ message }) => say(`Echo: ${message}`));
  tool("shell", "Runs a command.", { command: z.string() }, ({ command }) => say(`ran ${command}`));
  tool("count", "Counts, and tells how far it is.", { to: z.number() }, async ({ to }, extra) => {
    const progressToken = extra._meta?.progressToken ?? extra.mcpReq?._meta?.progressToken;
    for (let progress = 1; progress <= to && progressToken !== undefined; progress++)
      await notify(extra, { method: "notifications/progress", params: { progressToken, progress, total: to } });
    return say(`counted to ${to}`);
  });
  const prompt = (name) => server.registerPrompt(name, { description: name }, () =>
    ({ messages: [{ role: "user", content: { type: "text", text: `the prompt ${name}` } }] }));
  prompt("greeting");
  prompt("secret-prompt");
  const resource = (name) => server.registerResource(name, `note://${name}`, { description: name }, (uri) =>
    ({ contents: [{ uri: uri.href, text: `the note ${name}` }] }));
  resource("public");
  resource("secret");
  return server;
}

async function legacy() {
  const { McpServer } = await import("@modelcontextprotocol/sdk/server/mcp.js");
  const { StreamableHTTPServerTransport } = await import("@modelcontextprotocol/sdk/server/streamableHttp.js");
  const sessions = new Map();
  return async (request, response) => {
    let transport = sessions.get(request.headers["mcp-session-id"]);
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID, enableJsonResponse: mode === "json", onsessioninitialized: (id) => sessions.set(id, transport),
      });
      const server = new McpServer({ name: "legacy", version: "1" }, { capabilities: { logging: {} } });
      await fill(server, (shape) => shape, (extra, n) => extra.sendNotification(n)).connect(transport);
    }
    await transport.handleRequest(request, response);
  };
}

async function modern() {
  const { McpServer, createMcpHandler } = await import("@modelcontextprotocol/server");
  const make = () => fill(new McpServer({ name: "modern", version: "1" }), (shape) => z.object(shape), (extra, n) => extra.mcpReq.notify(n));
  const handler = createMcpHandler(make, { responseMode: mode });
  return async (request, response) => {
    const body = ["GET", "HEAD"].includes(request.method) ? undefined : Readable.toWeb(request);
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    const answer = await handler.fetch(new Request(`http://${request.headers.host}${request.url}`,
      { method: request.method, headers: request.headers, body, duplex: "half", signal: gone.signal }));
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    if (answer.body) Readable.fromWeb(answer.body).on("error", () => {}).pipe(response);
    else response.end();
  };
}

async function separate() {
  const { McpServer } = await import("@modelcontextprotocol/sdk/server/mcp.js");
  const { SSEServerTransport } = await import("@modelcontextprotocol/sdk/server/sse.js");
  const sessions = new Map();
  return async (request, response) => {
    if (request.method === "POST")
      return sessions.get(new URL(request.url, "http://localhost").searchParams.get("sessionId")).handlePostMessage(request, response);
    const transport = new SSEServerTransport("/messages", response);
    sessions.set(transport.sessionId, transport);
    return fill(new McpServer({ name: "separate", version: "1" }), (shape) => shape, (extra, n) => extra.sendNotification(n)).connect(transport);
  };
}

const serve = await { legacy, modern, separate }[era]();
http.createServer((request, response) => serve(request, response).catch((error) => {
  console.error(error);
  response.writeHead(500).end();
})).listen(Number(port), "127.0.0.1");
