// anthropic_client.mjs @anthropic-ai/sdk|@anthropic-ai/sdk-0 URL [leaky]: messages, counted and in batches; some refused.
import { step, all } from "./steps.mjs";

const [name, url, leaky] = process.argv.slice(2);
const { default: Anthropic } = await import(name);
const client = new Anthropic({ apiKey: "k", baseURL: url });
const ask = (model, content = "what is it?") => ({ model, max_tokens: 100, system: "be brief", messages: [{ role: "user", content }] });
const tool = (name) => ({ name, input_schema: { type: "object", properties: { message: { type: "string" } } } });
const create = (body) => client.messages.create(body);
const nested = [{ type: "tool_result", tool_use_id: "toolu_1", content: [{ type: "text", text: "the forbidden word" }] }];
const used = [{ role: "user", content: "?" }, { role: "assistant", content: [{ type: "tool_use", id: "toolu_1", name: "echo", input: {} }] },
  { role: "user", content: nested }];

if (leaky) {
  await step("messages", () => all(create({ ...ask("leaky"), stream: true })));
  await step("helper", () => client.messages.stream(ask("leaky")).finalMessage());
  process.exit();
}
await step("messages", () => create(ask("plain")));
await step("streamed", () => all(create({ ...ask("plain"), stream: true })));
await step("helper", () => client.messages.stream(ask("plain")).finalMessage());
await step("tools", () => all(create({ ...ask("tools"), stream: true, tools: [tool("echo")] })));
await step("beta", () => client.beta.messages.create({ ...ask("plain"), betas: ["x-1"] }));
await step("count", () => client.messages.countTokens({ model: "plain", messages: [{ role: "user", content: "?" }] }));
await step("batch", () => client.messages.batches.create({ requests: [{ custom_id: "1", params: ask("plain") }] }));

await step("refused messages", () => create(ask("forbidden")));
await step("messages after it", () => create(ask("plain")));
await step("refused stream", () => all(create({ ...ask("forbidden"), stream: true })));
await step("refused helper", () => client.messages.stream(ask("forbidden")).finalMessage());
await step("refused nested", () => create({ ...ask("plain"), messages: used }));
await step("refused tool", () => create({ ...ask("plain"), tools: [tool("echo"), tool("shell")] }));
await step("refused beta", () => client.beta.messages.create({ ...ask("plain"), betas: ["mcp-client-2025-04-04"],
  mcp_servers: [{ type: "url", name: "wiki", url: "https://evil.example/mcp" }] }));
await step("refused count", () => client.messages.countTokens({ model: "forbidden", messages: [{ role: "user", content: "?" }] }));
await step("refused batch", () => client.messages.batches.create({
  requests: [{ custom_id: "1", params: ask("plain") }, { custom_id: "2", params: ask("forbidden") }] }));
await step("limited", () => create(ask("limited")));
await step("stream after them", () => all(create({ ...ask("plain"), stream: true })));

for (const model of ["broken", "unfinished"]) {
  await step(`${model} messages`, () => all(create({ ...ask(model), stream: true })));
  await step(`${model} helper`, () => client.messages.stream(ask(model)).finalMessage());
}
await step("messages after all", () => create(ask("plain")));
