"""egress_client.py openai|anthropic: the same as node/egress_client.mjs, with the SDKs of Python."""
import json
import sys
import time

which = sys.argv[1]
MESSAGES = [{"role": "user", "content": "who rules?"}]

if which == "openai":
    import openai
    client = openai.OpenAI(api_key="test-key")

    def call(model):
        return client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content

    def stream(model):
        chunks = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
else:
    import anthropic
    client = anthropic.Anthropic(api_key="test-key")

    def call(model):
        return client.messages.create(model=model, max_tokens=64, messages=MESSAGES).content[0].text

    def stream(model):
        events = client.messages.create(model=model, max_tokens=64, messages=MESSAGES, stream=True)
        return "".join(event.delta.text for event in events if event.type == "content_block_delta")


def step(name, run, model):
    start = time.monotonic()
    try:
        told = {"value": run(model)}
    except Exception as error:
        told = {"thrown": type(error).__name__, "status": getattr(error, "status_code", None), "message": str(error)}
    print(json.dumps({"step": name, "ms": (time.monotonic() - start) * 1000, **told}), flush=True)


step("allowed", call, "plain")
step("forbidden", call, "forbidden")
step("allowed again", call, "plain")
step("stream", stream, "plain")
step("forbidden stream", stream, "forbidden")
step("leaky stream", stream, "leaky")
step("broken stream", stream, "broken")
step("allowed at last", call, "plain")
