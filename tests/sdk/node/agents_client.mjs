// agents_client.mjs @openai/agents|@openai/agents-0.11 MODEL_URL MCP_URL chat|responses: an agent with an MCP server's tools.
import { step } from "./steps.mjs";

const [name, modelUrl, mcpUrl, api] = process.argv.slice(2);
const { Agent, MCPServerStreamableHttp, OpenAIProvider, Runner, setTracingDisabled } = await import(name);
setTracingDisabled(true);
const runner = new Runner({ modelProvider: new OpenAIProvider({ apiKey: "k", baseURL: `${modelUrl}/v1`, useResponses: api === "responses" }) });
const server = new MCPServerStreamableHttp({ url: mcpUrl, name: "tools" });
await server.connect();

async function run(model, stream = false) {
  const agent = new Agent({ name: "worker", instructions: "use the tools", model, mcpServers: [server] });
  const result = await runner.run(agent, "do it", { stream });
  if (stream) {
    for await (const _ of result.toTextStream());
    await result.completed;
  }
  return result.finalOutput;
}

await step("allowed tool", () => run("tools:echo"));
await step("refused tool", () => run("tools:shell"));
await step("streamed tool", () => run("tools:echo", true));
await step("refused model", () => run("forbidden"));
await step("refused model streamed", () => run("forbidden", true));
await step("broken", () => run("broken", true));
await step("after all", () => run("plain"));
await server.close();
