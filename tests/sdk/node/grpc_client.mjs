// grpc_client.mjs @grpc/grpc-js|@grpc/grpc-js-1.8 ADDRESS PROTO: messages of the agent bus, some of them refused.
import loader from "@grpc/proto-loader";
import { step } from "./steps.mjs";

const [name, address, proto] = process.argv.slice(2);
const { default: grpc } = await import(name);
const bus = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true, enums: String })).acgs2.agent_bus.v1;
const client = new bus.AgentBus(address, grpc.credentials.createInsecure());
const HASH = "cdd01ef066bc6cf2";
const content = { fields: { text: { stringValue: "hi", kind: "stringValue" } } };
const message = (id, more = {}) => ({ message_id: id, from_agent: "planner", to_agent: "tools", tenant_id: "acme", message_type: "COMMAND", content,
  priority: "MEDIUM", constitutional_hash: HASH, impact_score: 0.25, routing: { routing_key: "k" }, headers: { a: "b" }, ...more });

const thrown = (e) => Object.assign(new Error(e.details), { code: e.code });
const send = (m, metadata = new grpc.Metadata()) => new Promise((resolve, reject) =>
  client.Send(m, metadata, { deadline: Date.now() + 5000 }, (e, value) => (e ? reject(thrown(e)) : resolve(value))));
const gzip = new grpc.Metadata();
gzip.set("grpc-internal-encoding-request", "gzip");
const stream = (...messages) => new Promise((resolve, reject) => {
  const call = client.Stream(new grpc.Metadata(), { deadline: Date.now() + 5000 }), got = [];
  call.on("data", (m) => {
    got.push(m.warnings[0]);
    if (messages.length) call.write(messages.shift());
    else call.end();
  });
  call.on("error", (e) => reject(Object.assign(thrown(e), { type: got.length })));
  call.on("end", () => resolve(got));
  call.write(messages.shift());
});

await step("send", () => send(message("1")));
await step("refused priority", () => send(message("2", { priority: "CRITICAL" })));
await step("send after it", () => send(message("3")));
await step("refused recipient", () => send(message("4", { to_agent: "", routing: { target_agent_id: "vault" } })));
await step("refused impact", () => send(message("5", { impact_score: 0.9 })));
await step("refused hash", () => send(message("6", { constitutional_hash: "abcd1234abcd1234" })));
await step("tell", () => send(message("7", { message_type: "AUDIT_LOG", conversation_id: "c1", impact_score: 0.8 })));
await step("stream", () => stream(message("8"), message("9"), message("10")));
await step("refused in a stream", () => stream(message("11"), message("12", { constitutional_hash: "abcd1234abcd1234" })));
await step("send after all", () => send(message("13")));
client.close();
