// grpc_server.mjs PORT: a service with the four kinds of calls, on raw bytes (no .proto is needed to be honest on the wire).
import { createRequire } from "node:module";
const grpc = createRequire(process.env.EPHOR_MODULES)("@grpc/grpc-js");
import { service } from "./grpc_service.mjs";

const server = new grpc.Server({ "grpc.max_receive_message_length": -1 });
server.addService(service, {
  unary(call, done) {
    const trailer = new grpc.Metadata();
    trailer.set("x-trailer", "there");
    if (call.request.toString() === "fail") return done({ code: 9, details: "not now, 100 % sure ü" }, null, trailer);
    call.sendMetadata(new grpc.Metadata());
    done(null, Buffer.concat([Buffer.from("got "), call.request]), trailer);
  },
  client(call, done) {
    let bytes = 0, count = 0;
    call.on("data", (m) => { bytes += m.length; count++; });
    call.on("end", () => done(null, Buffer.from(`${count} ${bytes}`)));
  },
  server(call) {
    for (let i = 0; i < Number(call.request); i++) call.write(Buffer.from(`m${i}`));
    call.end();
  },
  both(call) {
    call.on("data", (m) => call.write(m));
    call.on("end", () => call.end());
  },
});
server.bindAsync(`127.0.0.1:${process.argv[2]}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
