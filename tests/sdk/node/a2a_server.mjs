// a2a_server.mjs SDK HTTP_PORT GRPC_PORT: an agent that says what it was told, by `SDK` (sdk, sdk-0.3), in JSON-RPC (/rpc),
// REST (/rest) and gRPC. It prints each text that reaches it.
import express from "express";
import { Server, ServerCredentials } from "@grpc/grpc-js";
const [sdk, http, grpc] = process.argv.slice(2);
const old = sdk === "sdk-0.3", base = `@a2a-js/${sdk}`;
const { DefaultRequestHandler, InMemoryTaskStore, AgentEvent } = await import(`${base}/server`);
const { agentCardHandler, jsonRpcHandler, restHandler, UserBuilder } = await import(`${base}/server/express`);
const { grpcService, A2AService } = await import(`${base}/server/grpc`);

const told = (message) => message.parts.map((part) => (old ? part.text : part.content?.value) ?? "").join("|");
const part = (text) => old ? { kind: "text", text }
  : { content: { $case: "text", value: text }, metadata: undefined, filename: "", mediaType: "" };
const wrap = (kind, value) => old || !AgentEvent ? { kind, ...value } : AgentEvent[kind === "message" ? "message" : kind](value);

class Echo {
  async execute(context, bus) {
    const text = told(context.userMessage);
    console.log(`told ${text}`);
    bus.publish(wrap("message", {
      messageId: "reply", role: old ? "agent" : 2, parts: [part(`echo ${text}`)], contextId: "ctx", taskId: "",
      metadata: undefined, extensions: [], referenceTaskIds: [],
    }));
    bus.finished();
  }
  async cancelTask() {}
}
const capabilities = { streaming: true, pushNotifications: false, extensions: [] };
const common = { name: "echo", description: "says what it was told", version: "1", capabilities,
  skills: [{ id: "echo", name: "echo", description: "echo", tags: [], examples: [], inputModes: [], outputModes: [] }],
  defaultInputModes: ["text"], defaultOutputModes: ["text"] };
const card = old ? { ...common, protocolVersion: "0.3.0", url: `http://127.0.0.1:${http}/rpc` }
  : { ...common, supportedInterfaces: [["JSONRPC", `http://127.0.0.1:${http}/rpc`], ["HTTP+JSON", `http://127.0.0.1:${http}/rest`], ["GRPC", `127.0.0.1:${grpc}`]]
        .map(([protocolBinding, url]) => ({ url, protocolBinding, tenant: "", protocolVersion: "1.0" })),
      securitySchemes: {}, securityRequirements: [], signatures: [{ protected: "eyJhbGciOiJFUzI1NiJ9", signature: "c2ln", header: undefined }] };
const requestHandler = new DefaultRequestHandler(card, new InMemoryTaskStore(), new Echo());
const shared = { requestHandler, userBuilder: UserBuilder.noAuthentication };

const app = express();
app.use("/.well-known/agent-card.json", agentCardHandler({ agentCardProvider: requestHandler }));
app.use("/rpc", jsonRpcHandler(shared));
app.use("/rest", restHandler(shared));
const server = new Server();
server.addService(A2AService, grpcService(shared));
server.bindAsync(`127.0.0.1:${grpc}`, ServerCredentials.createInsecure(), () => app.listen(http, "127.0.0.1"));
