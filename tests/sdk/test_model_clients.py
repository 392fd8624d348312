"""OpenAI's and Anthropic's own SDKs, direct and through ephor: what is allowed is the same object, what is refused is the SDK's own
error with the policy's words after one try, the same client goes on, and no stream ends as if it were whole."""
import json

import pytest
from conftest import AT_ONCE, node, python
from harness import SANITIZED, config
from provider import Provider

REFUSES = {
    "models": '''
local policy = require "ephor.policy"
return policy { name = "models", match = { protocol = { "openai", "anthropic" } }, needs = { "model" },
  call = function(c)
    if c.model == "forbidden" then return c:deny("this model is not for agents") end
    if c.model == "limited" then return c:deny("enough for today", { status = 429 }) end
  end }''',
    "words": '''
local policy = require "ephor.policy"
return policy { name = "words", match = { prompt = "*the forbidden word*" },
  call = function(c) return c:deny("not even to a model") end }''',
    "offers": '''
local policy = require "ephor.policy"
return policy { name = "offers", match = { tools = "shell" },
  call = function(c) return c:deny("no commands for models") end }''',
    "servers": '''
local policy = require "ephor.policy"
return policy { name = "servers", match = { servers = "*" },
  call = function(c) return c:deny("no servers of others: " .. c.servers[1]) end }''',
}
CLIENTS = {
    "openai 7.57": lambda *a: node("openai_client.mjs", "openai", *a),
    "openai 6.49": lambda *a: node("openai_client.mjs", "openai-6", *a),
    "openai 4.104": lambda *a: node("openai_client.mjs", "openai-4", *a),
    "openai python 3.57": lambda *a: python("newest", "openai_client.py", *a),
    "openai python 1.109": lambda *a: python("older", "openai_client.py", *a),
    "anthropic 1.14": lambda *a: node("anthropic_client.mjs", "@anthropic-ai/sdk", *a),
    "anthropic 0.137": lambda *a: node("anthropic_client.mjs", "@anthropic-ai/sdk-0", *a),
    "anthropic python 2.14": lambda *a: python("newest", "anthropic_client.py", *a),
    "anthropic python 0.71": lambda *a: python("older", "anthropic_client.py", *a),
}
SAYS = {"nested": "not even to a model", "tool": "no commands for models", "server": "no servers of others: https://evil.example/mcp",
        "beta": "no servers of others: https://evil.example/mcp"}


@pytest.fixture
def provider():
    with Provider() as started:
        yield started


def through(proxy_or_provider, client, *more):
    steps = CLIENTS[client](f"http://127.0.0.1:{proxy_or_provider.port}", *more)
    return {s["step"]: s for s in steps if s["step"] != "before"}, [s["value"] for s in steps if s["step"] == "before"]


@pytest.mark.parametrize("client", CLIENTS)
def test_allowed_as_direct_refused_in_its_own_words_and_it_goes_on(ephor, policies, provider, client):
    proxy = ephor(config(provider.port, cluster={"protocol": "http/1.1"}, policies=policies(**REFUSES)))
    direct, _ = through(provider, client)
    assert "forbidden" in provider.models()
    provider.seen.clear()
    steps, _ = through(proxy, client)

    allowed = [name for name in direct if not name.startswith(("refused", "limited", "broken", "unfinished"))]
    assert len(allowed) >= 9
    for name in allowed:
        assert "value" in direct[name] and steps[name].get("value") == direct[name]["value"], (name, steps[name])
    assert not {"forbidden", "limited"} & set(provider.models()), "what is refused goes nowhere"

    refused = [name for name in steps if name.startswith("refused")]
    for name in refused:
        error, what = steps[name], name.split()[1]
        assert (error.get("thrown"), error.get("status")) == ("PermissionDeniedError", 403), (name, error)
        assert SAYS.get(what, "this model is not for agents") in error["message"], (name, error)
        assert error["request"] or "0.137" in client, (name, error)
        assert error["decision"] and error["request"] in (error["decision"], None), "the id is in the error itself"
        if client.startswith("openai"):
            assert (error["code"], error["type"]) == ("policy.denied", "invalid_request_error"), (name, error)
    assert (steps["limited"]["thrown"], steps["limited"]["status"]) == ("RateLimitError", 429)
    assert "enough for today" in steps["limited"]["message"]
    if not SANITIZED:
        assert max(steps[name]["ms"] for name in (*refused, "limited")) < AT_ONCE
    # a stream that ends well over HTTP and not in the words of its API: as direct, since some servers end so; but counted
    unfinished = [name for name in direct if name.startswith("unfinished")]
    assert len(unfinished) == 2
    for name in unfinished:
        assert (steps[name].get("value"), steps[name].get("thrown")) == (direct[name].get("value"), direct[name].get("thrown")), name
    proxy.counted(4, "ephor_llm_calls_total", usage="broken")  # and those that the upstream broke
    # one try each: the SDKs' own retries would be counted too
    proxy.counted(len(refused) + 1, "ephor_policy_decisions_total", decision="deny")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_that_breaks_is_an_error_of_the_sdk(ephor, provider, client):
    proxy = ephor(config(provider.port, cluster={"protocol": "http/1.1"}))
    steps, before = through(proxy, client)
    broken = [name for name in steps if name.startswith("broken")]
    assert len(broken) == 2 and before
    for name in broken:
        assert steps[name].get("thrown") in ("APIError", "APIStatusError"), (name, steps[name])
        assert "the upstream ended the response early" in steps[name]["message"] and steps[name]["decision"]
    assert "value" in steps[next(name for name in steps if name.endswith("after all"))]


MASK = '''
local policy = require "ephor.policy"
return policy { name = "mask", match = { protocol = { "openai", "anthropic" } },
  reply = function(r) r:redact({ "ssn", "email" }) end }'''
STOP = '''
local policy = require "ephor.policy"
return policy { name = "stop", match = { protocol = { "openai", "anthropic" } },
  event = function(e) if (e.text or ""):find("078-05", 1, true) then return e:deny("no codes in a stream") end end }'''


def text_of(event):
    """What a delta says, perhaps nothing; None: it is no delta of a text."""
    delta = event["choices"][0]["delta"] if event.get("choices") else event.get("delta", {})
    return delta if isinstance(delta, str) else delta.get("content", delta.get("text"))


def said(value):
    """All text of the deltas, or of the message that the SDK's helper made of them."""
    if isinstance(value, dict):
        return "".join(part["text"] for part in value["content"])
    return "".join(text_of(event) or "" for event in value)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_secret_over_two_deltas_is_redacted_and_the_rest_is_as_direct(ephor, policies, provider, client):
    proxy = ephor(config(provider.port, cluster={"protocol": "http/1.1"}, policies=policies(mask=MASK)))
    direct, _ = through(provider, client, "leaky")
    steps, _ = through(proxy, client, "leaky")
    assert len(direct) == 2
    for name in direct:
        assert said(direct[name]["value"]) == "the code is 078-05-1120 and mail is ann@example.com, bye"
        assert "value" in steps[name], steps[name]
        assert said(steps[name]["value"]) == "the code is [ssn] and mail is [email], bye", name
        masked = json.loads(json.dumps(direct[name]["value"]).replace("078-05-1120", "[ssn]").replace("ann@example.com", "[email]"))
        if isinstance(masked, dict):
            assert steps[name]["value"] == masked
            continue
        assert [e for e in steps[name]["value"] if text_of(e) is None] == [e for e in masked if text_of(e) is None]
        # what could still have become an address at the end of the text leaves in one event more
        assert len(steps[name]["value"]) <= len(masked) + 1


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_refused_in_the_middle_is_the_sdks_own_error(ephor, policies, provider, client):
    proxy = ephor(config(provider.port, cluster={"protocol": "http/1.1"}, policies=policies(stop=STOP)))
    steps, before = through(proxy, client, "leaky")
    assert before and "05-11" not in json.dumps(before), "what was in order has passed"
    for name in (n for n in steps if n != "before"):
        assert steps[name].get("thrown") in ("APIError", "APIStatusError", "PermissionDeniedError"), (name, steps[name])
        assert "no codes in a stream" in steps[name]["message"], (name, steps[name])
    proxy.counted(2, "ephor_policy_decisions_total", policy="stop", decision="deny")
