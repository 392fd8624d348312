// limits_client.mjs PACKAGE URL: an agent that goes on until a limit says no. A line of JSON for each step.
const [name, url] = process.argv.slice(2);
const { default: Client } = await import(name);
const anthropic = name.startsWith("@anthropic-ai/");
const client = new Client({ apiKey: "test-key", baseURL: anthropic ? url : `${url}/v1` });
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
    const headers = error.headers?.get ? error.headers : new Map(Object.entries(error.headers ?? {}));
    told = { thrown: error.constructor.name, status: error.status, message: error.message, wait: headers.get("retry-after") };
  }
  console.log(JSON.stringify({ step: name, ms: performance.now() - start, ...told }));
}

await step("call", () => call("law-1"));
await step("stream", () => stream("law-1"));
await step("over", () => call("law-1"));
await step("stream over", () => stream("law-1"));
await step("another model", () => call("law-2"));
