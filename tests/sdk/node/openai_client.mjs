// openai_client.mjs openai|openai-6|openai-4 URL [leaky]: chat completions, responses, embeddings, completions; some refused.
import { step, all } from "./steps.mjs";

const [name, url, leaky] = process.argv.slice(2);
const { default: OpenAI, AzureOpenAI } = await import(name);
const client = new OpenAI({ apiKey: "k", baseURL: `${url}/v1` });
const ask = (model, text = "what is it?") => ({ model, messages: [{ role: "system", content: "be brief" }, { role: "user", content: text }] });
const tool = (name) => ({ type: "function", function: { name, parameters: { type: "object", properties: { message: { type: "string" } } } } });
const nested = [{ type: "text", text: "look:" }, { type: "text", text: "the forbidden word" }];
const chat = (body, options) => client.chat.completions.create(body, options);
const respond = (body) => client.responses.create(body);

if (leaky) {
  await step("chat", () => all(chat({ ...ask("leaky"), stream: true })));
  await step("response", () => all(respond({ model: "leaky", input: "x", stream: true })));
  process.exit();
}
await step("chat", () => chat(ask("plain")));
await step("chat streamed", () => all(chat({ ...ask("plain"), stream: true, stream_options: { include_usage: true } })));
await step("chat tools", () => all(chat({ ...ask("tools"), tools: [tool("echo")], stream: true })));
await step("response", () => respond({ model: "plain", input: "what is it?", instructions: "be brief" }));
await step("response streamed", () => all(respond({ model: "plain", input: [{ role: "user", content: [{ type: "input_text", text: "?" }] }], stream: true })));
await step("response tools", () => all(respond({ model: "tools", input: "?", stream: true, tools: [{ type: "function", name: "echo", parameters: {}, strict: false }] })));
await step("embeddings", () => client.embeddings.create({ model: "plain", input: ["a", "b"] }));
await step("completion", () => client.completions.create({ model: "plain", prompt: "once" }));

await step("refused chat", () => chat(ask("forbidden")));
await step("chat after it", () => chat(ask("plain")));
await step("refused stream", () => all(chat({ ...ask("forbidden"), stream: true })));
await step("refused nested", () => chat({ ...ask("plain", nested) }));
await step("refused tool", () => chat({ ...ask("plain"), tools: [tool("echo"), tool("shell")] }));
await step("refused response", () => respond({ model: "forbidden", input: "x" }));
await step("refused response stream", () => all(respond({ model: "forbidden", input: "x", stream: true })));
await step("refused server", () => respond({ model: "plain", input: "x", tools: [{ type: "mcp", server_label: "wiki", server_url: "https://evil.example/mcp" }] }));
await step("refused embeddings", () => client.embeddings.create({ model: "forbidden", input: "a" }));
const azure = new AzureOpenAI({ apiKey: "k", endpoint: url, apiVersion: "2024-10-21", deployment: "forbidden" });
await step("refused deployment", () => azure.chat.completions.create(ask("plain")));
await step("limited", () => chat(ask("limited")));
await step("stream after them", () => all(chat({ ...ask("plain"), stream: true })));

for (const model of ["broken", "unfinished"]) {
  await step(`${model} chat`, () => all(chat({ ...ask(model), stream: true })));
  await step(`${model} response`, () => all(respond({ model, input: "x", stream: true })));
}
await step("chat after all", () => chat(ask("plain")));
