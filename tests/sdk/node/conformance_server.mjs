// conformance_server.mjs PORT: what MCP's conformance suite asks of a server under test, in both generations at /mcp: revisions
// up to 2025-11-25 with sessions by @modelcontextprotocol/sdk, 2026-07-28 by @modelcontextprotocol/server.
import http from "node:http";
import { createHmac, randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import { McpServer as Legacy, ResourceTemplate as LegacyTemplate } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { SubscribeRequestSchema, UnsubscribeRequestSchema, ElicitResultSchema, CreateMessageResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { completable as legacyCompletable } from "@modelcontextprotocol/sdk/server/completable.js";
import { McpServer as Modern, ResourceTemplate as ModernTemplate, completable as modernCompletable, createMcpHandler, inputRequired, isLegacyRequest } from "@modelcontextprotocol/server";
import { z } from "zod";

const PORT = Number(process.argv[2]);
const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
const text = (said) => ({ content: [{ type: "text", text: said }] });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const pause = () => new Promise((done) => setTimeout(done, 50));

const seal = (state) => `${state}.${createHmac("sha256", "conformance").update(state).digest("hex")}`;
const ask = (name, property, message, type = "string") => ({ [name]: inputRequired.elicit({
  message, requestedSchema: { type: "object", properties: { [property]: { type } }, required: [property] } }) });
const sample = (name, said, maxTokens) => ({ [name]: inputRequired.createMessage({
  messages: [{ role: "user", content: { type: "text", text: said } }], maxTokens }) });

// `v`: what differs between the two generations.
function fill(server, v) {
  const tool = (name, run, input) => server.registerTool(name, { description: `The suite's ${name}.`, ...(input && { inputSchema: v.schema(input) }) },
    (...given) => run(input ? given[0] : {}, given.at(-1)));
  tool("test_simple_text", () => text("This is a simple text response for testing."));
  tool("test_image_content", () => ({ content: [image] }));
  tool("test_audio_content", () => ({ content: [{ type: "audio", data: WAV, mimeType: "audio/wav" }] }));
  tool("test_embedded_resource", () => ({ content: [{ type: "resource", resource: {
    uri: "test://embedded-resource", mimeType: "text/plain", text: "This is an embedded resource content." } }] }));
  tool("test_multiple_content_types", () => ({ content: [{ type: "text", text: "Multiple content types test:" }, image,
    { type: "resource", resource: { uri: "test://mixed-content-resource", mimeType: "application/json", text: '{"test":"data","value":123}' } }] }));
  tool("test_error_handling", () => { throw new Error("This tool intentionally returns an error for testing"); });
  tool("test_tool_with_logging", async (_, extra) => {
    for (const said of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await v.notify(extra, { method: "notifications/message", params: { level: "info", data: said } });
      await pause();
    }
    return text("logged");
  });
  tool("test_tool_with_progress", async (_, extra) => {
    const progressToken = v.meta(extra)?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) await v.notify(extra, { method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      await pause();
    }
    return text("done");
  });
  server.registerResource("static-text", "test://static-text", { description: "Text.", mimeType: "text/plain" }, () =>
    ({ contents: [{ uri: "test://static-text", mimeType: "text/plain", text: "This is the content of the static text resource." }] }));
  server.registerResource("static-binary", "test://static-binary", { description: "A picture.", mimeType: "image/png" }, () =>
    ({ contents: [{ uri: "test://static-binary", mimeType: "image/png", blob: PNG }] }));
  server.registerResource("watched", "test://watched-resource", { description: "Watched.", mimeType: "text/plain" }, () =>
    ({ contents: [{ uri: "test://watched-resource", mimeType: "text/plain", text: "watched" }] }));
  server.registerResource("template", new v.Template("test://template/{id}/data", { list: undefined }),
    { description: "By id.", mimeType: "application/json" }, (uri, { id }) => ({ contents: [{ uri: uri.href, mimeType: "application/json",
      text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) }] }));
  const prompt = (name, messages, args) => server.registerPrompt(name, { description: `The suite's ${name}.`, ...(args && { argsSchema: v.schema(args) }) },
    (given) => ({ messages: messages(given).map((content) => ({ role: "user", content })) }));
  prompt("test_simple_prompt", () => [{ type: "text", text: "This is a simple prompt for testing." }]);
  prompt("test_prompt_with_arguments", ({ arg1, arg2 }) => [{ type: "text", text: `Prompt with arguments: arg1='${arg1}', arg2='${arg2}'` }],
    { arg1: v.completable(z.string(), () => ["paris", "park", "party"]), arg2: z.string() });
  prompt("test_prompt_with_embedded_resource", ({ resourceUri }) => [
    { type: "resource", resource: { uri: resourceUri, mimeType: "text/plain", text: "Embedded resource content for testing." } },
    { type: "text", text: "Please process the embedded resource above." }], { resourceUri: z.string() });
  prompt("test_prompt_with_image", () => [image, { type: "text", text: "Please analyze the image above." }]);
  return tool;
}

function legacy() {
  const server = new Legacy({ name: "conformance", version: "1" }, { capabilities: { logging: {}, resources: { subscribe: true } } });
  const tool = fill(server, { schema: (shape) => shape, notify: (extra, n) => extra.sendNotification(n), meta: (extra) => extra._meta,
    Template: LegacyTemplate, completable: legacyCompletable });
  const elicit = (extra, message, requestedSchema) => extra.sendRequest({ method: "elicitation/create", params: { message, requestedSchema } }, ElicitResultSchema);
  tool("test_sampling", async ({ prompt }, extra) => {
    const said = await extra.sendRequest({ method: "sampling/createMessage",
      params: { messages: [{ role: "user", content: { type: "text", text: prompt } }], maxTokens: 100 } }, CreateMessageResultSchema);
    return text(`LLM response: ${said.content.text}`);
  }, { prompt: z.string() });
  tool("test_elicitation", async ({ message }, extra) => {
    const said = await elicit(extra, message, { type: "object", required: ["username", "email"], properties: {
      username: { type: "string", description: "User's response" }, email: { type: "string", description: "User's email address" } } });
    return text(`User response: <action: ${said.action}, content: ${JSON.stringify(said.content)}>`);
  }, { message: z.string() });
  const completed = (said) => text(`Elicitation completed: action=${said.action}, content=${JSON.stringify(said.content)}`);
  tool("test_elicitation_sep1034_defaults", async (_, extra) => completed(await elicit(extra, "Defaults", { type: "object", properties: {
    name: { type: "string", default: "John Doe" }, age: { type: "integer", default: 30 }, score: { type: "number", default: 95.5 },
    status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" }, verified: { type: "boolean", default: true } } })));
  const titled = (prefix, ...titles) => titles.map((title, i) => ({ const: `${prefix}${i + 1}`, title }));
  const options = ["option1", "option2", "option3"];
  tool("test_elicitation_sep1330_enums", async (_, extra) => completed(await elicit(extra, "Enums", { type: "object", properties: {
    untitledSingle: { type: "string", enum: options },
    titledSingle: { type: "string", oneOf: titled("value", "First Option", "Second Option", "Third Option") },
    legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
    untitledMulti: { type: "array", items: { type: "string", enum: options } },
    titledMulti: { type: "array", items: { anyOf: titled("value", "First Choice", "Second Choice", "Third Choice") } } } })));
  server.server.setRequestHandler(SubscribeRequestSchema, () => ({}));
  server.server.setRequestHandler(UnsubscribeRequestSchema, () => ({}));
  return server;
}

function modern() {
  const server = new Modern({ name: "conformance", version: "1" }, { requestState: { verify: (state) => {
    if (seal(String(state).split(".")[0]) !== state) throw new Error("tampered");
  } } });
  const tool = fill(server, { schema: (shape) => z.object(shape), notify: (extra, n) => extra.mcpReq.notify(n),
    meta: (extra) => extra.mcpReq._meta, Template: ModernTemplate, completable: modernCompletable });
  const rounds = (name, requests, finish, state) => tool(name, (_, { mcpReq }) => {
    const answers = mcpReq.inputResponses ?? {};
    return Object.keys(requests).every((key) => answers[key])
      ? finish(answers) : inputRequired({ inputRequests: requests, ...(state && { requestState: seal(state) }) });
  });
  rounds("test_input_required_result_elicitation", ask("user_name", "name", "What is your name?"), (a) => text(`Hello, ${a.user_name.content?.name}!`));
  rounds("test_input_required_result_sampling", sample("capital_question", "What is the capital of France?", 100),
    (a) => text(JSON.stringify(a.capital_question.content)));
  rounds("test_input_required_result_list_roots", { client_roots: inputRequired.listRoots() }, (a) => text(JSON.stringify(a.client_roots.roots)));
  rounds("test_input_required_result_request_state", ask("confirm", "ok", "Please confirm", "boolean"), () => text("state-ok"), "confirm");
  rounds("test_input_required_result_tampered_state", ask("confirm", "ok", "Please confirm", "boolean"), () => text("state-ok"), "tamper");
  rounds("test_input_required_result_multiple_inputs", { ...ask("user_name", "name", "What is your name?"),
    ...sample("greeting", "Generate a greeting", 50), client_roots: inputRequired.listRoots() }, () => text("all there"), "several");
  tool("test_input_required_result_multi_round", (_, { mcpReq }) => {
    const answers = mcpReq.inputResponses ?? {};
    if (answers.step2) return text("three rounds");
    return answers.step1 ? inputRequired({ inputRequests: ask("step2", "color", "Step 2: What is your favorite color?"), requestState: seal("two") })
      : inputRequired({ inputRequests: ask("step1", "name", "Step 1: What is your name?"), requestState: seal("one") });
  });
  tool("test_input_required_result_capabilities", (_, { mcpReq }) => {
    const can = mcpReq.envelope?.["io.modelcontextprotocol/clientCapabilities"] ?? {};
    return inputRequired({ inputRequests: { ...(can.elicitation && ask("user_name", "name", "What is your name?")),
      ...(can.sampling && sample("greeting", "Generate a greeting", 50)) } });
  });
  rounds("test_missing_capability", sample("greeting", "Generate a greeting", 50), () => text("sampled"));
  tool("test_streaming_elicitation", async (_, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken ?? "none";
    await mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress: 1, total: 2 } });
    return mcpReq.inputResponses ? text("streamed") : inputRequired({ inputRequests: ask("user_name", "name", "What is your name?") });
  });
  tool("test_logging_tool", async (_, { mcpReq }) => {
    await mcpReq.log("info", "logged");
    return text("logged");
  });
  tool("test_custom_header", ({ region }) => text(region), { region: z.string().meta({ "x-mcp-header": "Region" }) });
  server.registerPrompt("test_input_required_result_prompt", { description: "Asks first." }, ({ mcpReq }) =>
    mcpReq.inputResponses?.user_context ? { messages: [{ role: "user", content: { type: "text", text: "with context" } }] }
      : inputRequired({ inputRequests: ask("user_context", "context", "What context should the prompt use?") }));
  return server;
}

const sessions = new Map();
const handler = createMcpHandler(modern, { legacy: "reject" });
const local = (value) => !value || ["localhost", "127.0.0.1", "[::1]"].includes(new URL(value.includes("://") ? value : `http://${value}`).hostname);

async function serve(request, response) {
  if (!local(request.headers.host) || !local(request.headers.origin)) return response.writeHead(403).end();
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = chunks.length ? Buffer.concat(chunks) : undefined;
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const asked = new Request(`http://${request.headers.host}${request.url}`, { method: request.method, headers: request.headers, body, signal: gone.signal });
  if (!(await isLegacyRequest(asked.clone()))) {
    const answer = await handler.fetch(asked);
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    if (answer.body) Readable.fromWeb(answer.body).on("error", () => {}).pipe(response);
    else response.end();
    return undefined;
  }
  const id = request.headers["mcp-session-id"];
  let transport = sessions.get(id);
  if (!transport && id) return response.writeHead(404).end();
  if (!transport) {
    transport = new StreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, onsessioninitialized: (given) => sessions.set(given, transport),
      onsessionclosed: (given) => sessions.delete(given) });
    await legacy().connect(transport);
  }
  let message;
  try { message = body && JSON.parse(body); } catch { /* the transport says what is wrong with it */ }
  return transport.handleRequest(request, response, message);
}

http.createServer((request, response) => serve(request, response).catch((error) => {
  console.error(error);
  if (!response.headersSent) response.writeHead(500);
  response.end();
})).listen(PORT, "localhost");
