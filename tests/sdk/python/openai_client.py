"""openai_client.py URL [leaky]: the steps of node/openai_client.mjs."""
import sys

import openai
from steps import all_of, step

url, leaky = sys.argv[1], len(sys.argv) > 2
client = openai.OpenAI(api_key="k", base_url=f"{url}/v1")
chat, respond = client.chat.completions.create, client.responses.create


def ask(model, text="what is it?"):
    return {"model": model, "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]}


def tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"message": {"type": "string"}}}}}


if leaky:
    step("chat", lambda: all_of(chat(**ask("leaky"), stream=True)))
    step("response", lambda: all_of(respond(model="leaky", input="x", stream=True)))
    sys.exit()
step("chat", lambda: chat(**ask("plain")))
step("chat streamed", lambda: all_of(chat(**ask("plain"), stream=True, stream_options={"include_usage": True})))
step("chat tools", lambda: all_of(chat(**ask("tools"), tools=[tool("echo")], stream=True)))
step("response", lambda: respond(model="plain", input="what is it?", instructions="be brief"))
step("response streamed", lambda: all_of(respond(
    model="plain", input=[{"role": "user", "content": [{"type": "input_text", "text": "?"}]}], stream=True)))
step("response tools", lambda: all_of(respond(
    model="tools", input="?", stream=True, tools=[{"type": "function", "name": "echo", "parameters": {}, "strict": False}])))
step("embeddings", lambda: client.embeddings.create(model="plain", input=["a", "b"]))
step("completion", lambda: client.completions.create(model="plain", prompt="once"))

step("refused chat", lambda: chat(**ask("forbidden")))
step("chat after it", lambda: chat(**ask("plain")))
step("refused stream", lambda: all_of(chat(**ask("forbidden"), stream=True)))
step("refused nested", lambda: chat(**ask("plain", [{"type": "text", "text": "look:"}, {"type": "text", "text": "the forbidden word"}])))
step("refused tool", lambda: chat(**ask("plain"), tools=[tool("echo"), tool("shell")]))
step("refused response", lambda: respond(model="forbidden", input="x"))
step("refused response stream", lambda: all_of(respond(model="forbidden", input="x", stream=True)))
step("refused server", lambda: respond(
    model="plain", input="x", tools=[{"type": "mcp", "server_label": "wiki", "server_url": "https://evil.example/mcp"}]))
step("refused embeddings", lambda: client.embeddings.create(model="forbidden", input="a"))
azure = openai.AzureOpenAI(api_key="k", azure_endpoint=url, api_version="2024-10-21", azure_deployment="forbidden")
step("refused deployment", lambda: azure.chat.completions.create(**ask("plain")))
step("limited", lambda: chat(**ask("limited")))
step("stream after them", lambda: all_of(chat(**ask("plain"), stream=True)))

for model in ("broken", "unfinished"):
    step(f"{model} chat", lambda: all_of(chat(**ask(model), stream=True)))
    step(f"{model} response", lambda: all_of(respond(model=model, input="x", stream=True)))
step("chat after all", lambda: chat(**ask("plain")))
