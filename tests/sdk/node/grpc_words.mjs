// grpc_words.mjs @grpc/grpc-js|@grpc/grpc-js-1.8 ADDRESS: streams of words from a server; the last one says how they end.
import { step } from "./steps.mjs";

const [name, address] = process.argv.slice(2);
const { default: grpc } = await import(name);
const client = new grpc.Client(address, grpc.credentials.createInsecure());
const same = (bytes) => bytes;

const words = (last) => new Promise((resolve, reject) => {
  const call = client.makeServerStreamRequest("/test.Words/Say", same, same, Buffer.from(last), new grpc.Metadata(), { deadline: Date.now() + 5000 });
  const got = [];
  call.on("data", (word) => got.push(word.toString()));
  call.on("end", () => resolve(got));
  call.on("error", (e) => {
    console.log(JSON.stringify({ step: "before", value: got }));
    reject(Object.assign(new Error(e.details), { code: e.code }));
  });
});

await step("whole", () => words("calm"));
for (const end of ["osprey", "reset", "gone"]) {
  await step(end, () => words(end));
  await step(`after ${end}`, () => words("calm"));
}
client.close();
