"""The same as node/talk.mjs, with the SDKs of Python."""

MESSAGES = [{"role": "user", "content": "who rules?"}]


def talk(which, url=None):
    """call(model) and stream(model) of the SDK `which`, openai or anthropic; without a URL at its own."""
    if which == "openai":
        import openai
        client = openai.OpenAI(api_key="test-key", base_url=url and f"{url}/v1")

        def call(model):
            return client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content

        def stream(model):
            chunks = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    else:
        import anthropic
        client = anthropic.Anthropic(api_key="test-key", base_url=url)

        def call(model):
            return client.messages.create(model=model, max_tokens=64, messages=MESSAGES).content[0].text

        def stream(model):
            events = client.messages.create(model=model, max_tokens=64, messages=MESSAGES, stream=True)
            return "".join(event.delta.text for event in events if event.type == "content_block_delta")
    return call, stream
