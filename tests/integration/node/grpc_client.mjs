// grpc_client.mjs PORT: all four kinds, an error with its trailer, a deadline, a cancel; tells what came back.
import { createRequire } from "node:module";
const grpc = createRequire(process.env.EPHOR_MODULES)("@grpc/grpc-js");
import { service } from "./grpc_service.mjs";

const Client = grpc.makeGenericClientConstructor(service, "Echo");
const client = new Client(`127.0.0.1:${process.argv[2]}`, grpc.credentials.createInsecure(),
  { "grpc.max_receive_message_length": -1 });
const only = process.argv[3];
const told = {};

const unary = (text, options = {}) => new Promise((resolve) => {
  let trailer;
  const call = client.unary(Buffer.from(text), options, (error, answer) =>
    setImmediate(() => resolve({ code: error?.code ?? 0, details: error?.details, text: answer?.toString().slice(0, 40), size: answer?.length,
      trailer: (error?.metadata ?? trailer)?.get("x-trailer")[0] })));
  call.on("status", (status) => { trailer = status.metadata; });
});

told.unary = await unary("hello");
if (only !== "unary") {
  told.big = (await unary("b".repeat(3_000_000))).size;
  told.failed = await unary("fail");
  told.client = await new Promise((resolve, reject) => {
    const call = client.client((error, answer) => (error ? reject(error) : resolve(answer.toString())));
    for (let i = 0; i < 20; i++) call.write(Buffer.alloc(1000));
    call.end();
  });
  told.server = await new Promise((resolve, reject) => {
    let count = 0;
    client.server(Buffer.from("100")).on("data", () => count++).on("end", () => resolve(count)).on("error", reject);
  });
  told.both = await new Promise((resolve, reject) => {
    const call = client.both();
    let turns = 0;
    call.on("data", () => (++turns === 30 ? call.end() : call.write(Buffer.from(`t${turns}`)))); // each waits for the one before
    call.on("end", () => resolve(turns)).on("error", reject);
    call.write(Buffer.from("t0"));
  });
  told.deadline = await new Promise((resolve) => {
    client.both({ deadline: Date.now() + 300 }).on("data", () => {}).on("error", (error) => resolve(error.code));
  });
  told.cancelled = await new Promise((resolve) => {
    const call = client.both();
    call.on("data", () => call.cancel()).on("error", (error) => resolve(error.code));
    call.write(Buffer.from("x"));
  });
}
console.log(JSON.stringify(told));
client.close();
