// a2a_client.mjs SDK BINDING URL: one client of `SDK` (sdk, sdk-0.3) over BINDING (JSONRPC, HTTP+JSON, GRPC) that is allowed and
// refused in turns; a line of JSON for each.
const [sdk, binding, url, only, ...texts] = process.argv.slice(2);
const old = sdk === "sdk-0.3", base = `@a2a-js/${sdk}/client`;
const { ClientFactory, JsonRpcTransportFactory, RestTransportFactory } = await import(base);
const { GrpcTransportFactory } = await import(`${base}/grpc`);

const common = { name: "echo", description: "d", version: "1", skills: [], defaultInputModes: ["text"], defaultOutputModes: ["text"],
  capabilities: { streaming: true, pushNotifications: false, extensions: [] } };
const card = old ? { ...common, protocolVersion: "0.3.0", url, preferredTransport: binding }
  : { ...common, supportedInterfaces: [{ url, protocolBinding: binding, tenant: "", protocolVersion: "1.0" }], securitySchemes: {},
      securityRequirements: [], signatures: [] };
const factory = new ClientFactory({ transports: [new JsonRpcTransportFactory(), new RestTransportFactory(), new GrpcTransportFactory()] });
const client = await factory.createFromAgentCard(card);

const request = (text) => old
  ? { message: { kind: "message", messageId: "m", role: "user", parts: [{ kind: "text", text }] } }
  : { tenant: "", metadata: undefined, configuration: undefined,
      message: { messageId: "m", contextId: "", taskId: "", role: 1, extensions: [], referenceTaskIds: [], metadata: undefined,
        parts: [{ content: { $case: "text", value: text }, metadata: undefined, filename: "", mediaType: "" }] } };

async function step(name, call) {
  const start = performance.now();
  let told;
  try {
    told = { value: await call() };
  } catch (error) {
    const chain = [];
    for (let e = error; e && chain.length < 4; e = e.cause) chain.push(e.constructor.name, e.name);
    told = { thrown: chain, message: error.message, code: error.code ?? error.envelopeCode, all: `${error.message} ${JSON.stringify(error)} ${error.cause?.message}` };
  }
  console.log(JSON.stringify({ step: name, ms: performance.now() - start, ...told }));
}

async function stream(text) {
  const events = [];
  for await (const event of client.sendMessageStream(request(text))) {
    events.push(event);
    if (only) console.log(JSON.stringify({ step: "event", value: event }));
  }
  return events;
}
if (only === "stream") {
  await step("stream", () => stream("hello"));
  for (const text of texts) await step("after it", () => stream(text));
} else {
  await step("first", () => client.sendMessage(request("hello")));
  await step("denied", () => client.sendMessage(request("a secret")));
  await step("after denied", () => client.sendMessage(request("again")));
  await step("stream", () => stream("hello"));
  await step("denied stream", () => stream("a secret"));
  await step("after denied stream", () => stream("again"));
  await step("last", () => client.sendMessage(request("last")));
}
process.exit(0);
