// talk.mjs: the SDK `name` of a model provider as anybody uses it: text for a question, at once or streamed.
export async function talk(name, url) {
  const { default: Client } = await import(name);
  const anthropic = name.startsWith("@anthropic-ai/");
  const client = new Client({ apiKey: "test-key", ...(url && { baseURL: anthropic ? url : `${url}/v1` }) });
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
  return { call, stream };
}
