"""anthropic_client.py URL [leaky]: the steps of node/anthropic_client.mjs."""
import sys

import anthropic
from steps import all_of, step

url, leaky = sys.argv[1], len(sys.argv) > 2
client = anthropic.Anthropic(api_key="k", base_url=url)
create = client.messages.create
NESTED = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "the forbidden word"}]}]
USED = [{"role": "user", "content": "?"}, {"role": "user", "content": NESTED},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "echo", "input": {}}]}]
ONE = [{"role": "user", "content": "?"}]


def ask(model, content="what is it?"):
    return {"model": model, "max_tokens": 100, "system": "be brief", "messages": [{"role": "user", "content": content}]}


def tool(name):
    return {"name": name, "input_schema": {"type": "object", "properties": {"message": {"type": "string"}}}}


def helper(model):
    with client.messages.stream(**ask(model)) as stream:
        return stream.get_final_message()


if leaky:
    step("messages", lambda: all_of(create(**ask("leaky"), stream=True)))
    step("helper", lambda: helper("leaky"))
    sys.exit()
step("messages", lambda: create(**ask("plain")))
step("streamed", lambda: all_of(create(**ask("plain"), stream=True)))
step("helper", lambda: helper("plain"))
step("tools", lambda: all_of(create(**ask("tools"), stream=True, tools=[tool("echo")])))
step("beta", lambda: client.beta.messages.create(**ask("plain"), betas=["x-1"]))
step("count", lambda: client.messages.count_tokens(model="plain", messages=ONE))
step("batch", lambda: client.messages.batches.create(requests=[{"custom_id": "1", "params": ask("plain")}]))

step("refused messages", lambda: create(**ask("forbidden")))
step("messages after it", lambda: create(**ask("plain")))
step("refused stream", lambda: all_of(create(**ask("forbidden"), stream=True)))
step("refused helper", lambda: helper("forbidden"))
step("refused nested", lambda: create(**{**ask("plain"), "messages": USED}))
step("refused tool", lambda: create(**ask("plain"), tools=[tool("echo"), tool("shell")]))
step("refused beta", lambda: client.beta.messages.create(
    **ask("plain"), betas=["mcp-client-2025-04-04"], mcp_servers=[{"type": "url", "name": "wiki", "url": "https://evil.example/mcp"}]))
step("refused count", lambda: client.messages.count_tokens(model="forbidden", messages=ONE))
step("refused batch", lambda: client.messages.batches.create(
    requests=[{"custom_id": "1", "params": ask("plain")}, {"custom_id": "2", "params": ask("forbidden")}]))
step("limited", lambda: create(**ask("limited")))
step("stream after them", lambda: all_of(create(**ask("plain"), stream=True)))

for model in ("broken", "unfinished"):
    step(f"{model} messages", lambda: all_of(create(**ask(model), stream=True)))
    step(f"{model} helper", lambda: helper(model))
step("messages after all", lambda: create(**ask("plain")))
