// grpc_server.mjs PORT PROTO: the agent bus by @grpc/grpc-js; prints each message that arrives.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [port, proto] = process.argv.slice(2);
const bus = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true, enums: String })).acgs2.agent_bus.v1;
const server = new grpc.Server();
const answer = (m) => {
  console.log(`got ${m.message_id}`);
  return { is_valid: true, decision: "ALLOW", errors: [], warnings: [`from ${m.from_agent}`] };
};
server.addService(bus.AgentBus.service, {
  Send: (call, done) => done(null, answer(call.request)),
  Stream: (call) => {
    call.on("data", (m) => call.write(answer(m)));
    call.on("end", () => call.end());
    call.on("error", () => {});
  },
});
server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (e) => { if (e) throw e; });
