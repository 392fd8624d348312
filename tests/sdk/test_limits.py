"""OpenAI's and Anthropic's SDKs at a limit: their own RateLimitError after one try, with the time to wait; the next call works.
What they used is counted, streams too."""
import json

import pytest
import wire1
from conftest import AT_ONCE, node, python
from harness import config

SDKS = [("node", "openai"), ("node", "openai-6"), ("node", "openai-4"), ("node", "@anthropic-ai/sdk"), ("node", "@anthropic-ai/sdk-0"),
        ("newest", "openai"), ("older", "openai"), ("newest", "anthropic"), ("older", "anthropic")]


def provider(wire, request):
    asked = json.loads(request.body)
    if "/messages" in request.path:
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
        whole = {**head, "content": [{"type": "text", "text": "the law"}], "stop_reason": "end_turn",
                 "usage": {"input_tokens": 10, "output_tokens": 4}}
        events = [{"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": {"input_tokens": 10, "output_tokens": 1}}},
                  {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                  {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "the law"}},
                  {"type": "content_block_stop", "index": 0},
                  {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 4}},
                  {"type": "message_stop"}]
        text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
    else:
        head = {"id": "c-1", "created": 1, "model": asked["model"]}
        whole = {**head, "object": "chat.completion", "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
                 "choices": [{"index": 0, "message": {"role": "assistant", "content": "the law"}, "finish_reason": "stop"}]}
        chunk = {**head, "object": "chat.completion.chunk"}
        events = [{**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "the law"}, "finish_reason": None}]},
                  {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
        text = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"
    if asked.get("stream"):
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in text.encode(), b"":
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    else:
        wire.send(wire1.answer(json.dumps(whole), headers="Content-Type: application/json\r\n"))


@pytest.mark.limit(120)
@pytest.mark.parametrize("where,package", SDKS)
def test_a_limit_is_the_sdks_own_error_after_one_try(ephor, h1_server, where, package):
    server = h1_server(provider)
    limit = {"name": "calls", "key": ["model"], "requests": "2/1h"}
    proxy = ephor(config(server.port, {"filters": ["agent", {"ratelimit": {"limits": [limit]}}, "meter"]}, {"protocol": "http/1.1"}))
    url = f"http://127.0.0.1:{proxy.port}"
    steps = node("limits_client.mjs", package, url) if where == "node" else python(where, "limits_client.py", package, url)
    told = {s["step"]: s for s in steps}
    for name in "call", "stream", "another model":
        assert told[name].get("value") == "the law", told[name]
    for name in "over", "stream over":
        refused = told[name]
        assert refused["thrown"] == "RateLimitError" and refused["status"] == 429, refused
        assert "Refused by limit calls: more than 2 requests in 1h" in refused["message"] and int(refused["wait"]) > 1700
        assert refused["ms"] < AT_ONCE
    proxy.counted(2, "ephor_ratelimit_total", decision="deny")  # one try each
    assert len(server.requests) == 3
    sent = {kind: proxy.metric("ephor_llm_tokens_total", kind=kind) for kind in ("input", "output", "output_estimated")}
    if "anthropic" in package:
        assert sent == {"input": 30, "output": 12, "output_estimated": 0}
    else:
        assert sent == {"input": 20, "output": 8, "output_estimated": 2}, "this stream says nothing of usage"
