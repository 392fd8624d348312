// egress_client.mjs PACKAGE: an agent as anybody writes it: the SDK of a model provider as it comes, its own base URL, calls
// that are allowed and refused in turns. A line of JSON for each.
const [name] = process.argv.slice(2);
const { default: Client } = await import(name);
const anthropic = name.startsWith("@anthropic-ai/");
const client = new Client({ apiKey: "test-key" });
const messages = [{ role: "user", content: "who rules?" }];

async function call(model) {
  if (anthropic) return (await client.messages.create({ model, max_tokens: 64, messages })).content[0].text;
  return (await client.chat.completions.create({ model, messages })).choices[0].message.content;
}

async function stream(model) {
  let text = "";
  if (anthropic) {
    for await (const e of await client.messages.create({ model, max_tokens: 64, messages, stream: true }))
      if (e.type === "content_block_delta") text += e.delta.text;
  } else {
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
      text += chunk.choices[0]?.delta?.content ?? "";
  }
  return text;
}

async function step(name, run) {
  const start = performance.now();
  let told;
  try {
    told = { value: await run() };
  } catch (error) {
    told = { thrown: error.constructor.name, status: error.status, message: error.message };
  }
  console.log(JSON.stringify({ step: name, ms: performance.now() - start, ...told }));
}

await step("allowed", () => call("plain"));
await step("forbidden", () => call("forbidden"));
await step("allowed again", () => call("plain"));
await step("stream", () => stream("plain"));
await step("forbidden stream", () => stream("forbidden"));
await step("leaky stream", () => stream("leaky"));
await step("broken stream", () => stream("broken"));
await step("allowed at last", () => call("plain"));
