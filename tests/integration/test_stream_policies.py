"""Policies on streams of events: judged event by event, denied and redacted over the border of two events, and in each
protocol's own words."""
import json
import re

import pytest
from harness import config, until
from test_live_streams import Origin, caller, error_of, events_of, kind  # noqa: F401

pytestmark = pytest.mark.workers

SSN = "123-45-6789"


def policy(name, more):
    return f'local policy = require "ephor.policy"\nreturn policy {{ name = "{name}", {more} }}\n'


REDACT = 'reply = function(r) r:redact("ssn") end'


@pytest.fixture
def play(ephor, h1_server, h2_server, policies, kind, caller):
    """play(**policies): a proxy with these policies; .say(text, …) is what the origin answers next, .ask(protocol) the events."""
    def start(settings=None, **scripts):
        origin = Origin(h1_server, h2_server, kind)
        cluster = {"protocol": "http/1.1" if kind == "h1" else "h2"}
        proxy = ephor(config(origin.port, cluster=cluster, policies={"directory": policies(**scripts), **(settings or {})}))
        proxy.origin = origin
        return caller(proxy)
    return start


def ask(proxy, protocol, *said, pieces=None):
    """What a caller gets of a whole stream, in one piece an event or cut anew every so many bytes."""
    caller = proxy.call(protocol)
    if pieces:
        text = b"".join(said)
        said = [text[i:i + pieces] for i in range(0, len(text), pieces)]
    proxy.origin.say(*said, None)
    return caller.to_end()


# --- each protocol's events ---------------------------------------------------------------------------------------------
def event(data, name=None):
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def chat(*texts, finish="stop"):
    def chunk(delta, why=None):
        return event({"id": "c1", "object": "chat.completion.chunk", "model": "gpt", "choices":
                      [{"index": 0, "delta": delta, "finish_reason": why}]})
    out = [chunk({"role": "assistant", "content": ""})] + [chunk({"content": t}) for t in texts]
    return out + ([chunk({}, finish)] if finish else []) + [b"data: [DONE]\n\n"]


def chat_text(got):
    datas = [d for _, d in events_of(got) if d != "[DONE]"]
    return "".join(c["delta"].get("content") or "" for d in map(json.loads, datas) for c in d["choices"])


def responses(*texts):
    out = [event({"type": "response.created", "sequence_number": 0}, "response.created")]
    out += [event({"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0, "delta": t},
                  "response.output_text.delta") for t in texts]
    whole = "".join(texts)
    return out + [event({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": whole},
                        "response.output_text.done"),
                  event({"type": "response.completed", "response": {"output": [{"content": [{"text": whole}]}]}}, "response.completed")]


def responses_text(got):
    datas = [json.loads(d) for _, d in events_of(got)]
    text = "".join(d["delta"] for d in datas if d["type"] == "response.output_text.delta")
    assert all(d["text"] == text for d in datas if d["type"] == "response.output_text.done")
    return text


def anthropic(*texts):
    out = [event({"type": "message_start", "message": {"id": "m"}}, "message_start"),
           event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, "content_block_start")]
    out += [event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}}, "content_block_delta")
            for t in texts]
    return out + [event({"type": "content_block_stop", "index": 0}, "content_block_stop"), event({"type": "message_stop"}, "message_stop")]


def anthropic_text(got):
    events = [(n, json.loads(d)) for n, d in events_of(got)]
    assert all(n == d["type"] for n, d in events), "each event keeps its name"
    kinds = [n for n, _ in events]
    assert kinds.index("content_block_stop") > max(i for i, n in enumerate(kinds) if n == "content_block_delta"), "nothing behind its stop"
    return "".join(d["delta"]["text"] for n, d in events if n == "content_block_delta")


MODELS = {"openai": (chat, chat_text), "responses": (responses, responses_text), "anthropic": (anthropic, anthropic_text)}


# --- redaction ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", MODELS)
@pytest.mark.parametrize("cut", range(1, len(SSN)))
def test_a_secret_that_two_events_share_is_replaced(play, protocol, cut):
    make, text = MODELS[protocol]
    proxy = play(no_ssn=policy("no-ssn", REDACT))
    got = ask(proxy, protocol, *make("Her number is ", SSN[:cut], SSN[cut:], ", and ", "that is all: 12"))
    assert text(got) == "Her number is [ssn], and that is all: 12"
    assert SSN[cut:].encode() not in got
    proxy.counted(1 if protocol != "responses" else 3, "ephor_policy_redactions_total", policy="no-ssn", what="ssn", mode="enforce")


@pytest.mark.parametrize("protocol", MODELS)
@pytest.mark.parametrize("pieces", [1, 5, 4096])
def test_every_letter_an_event_and_every_byte_a_piece(play, protocol, pieces):
    make, text = MODELS[protocol]
    proxy = play(no_ssn=policy("no-ssn", 'reply = function(r) r:redact({ "ssn", "email" }) r:redact("%f[%w]Project%s+%a+", { with = "<é\\"x>" }) end'))
    wanted = f"Ask jane.doe@example.com (é) about {SSN} and Project Mercury. 10-20!"
    got = ask(proxy, protocol, *make(*wanted), pieces=pieces)
    assert text(got) == 'Ask [email] (é) about [ssn] and <é"x>. 10-20!'


@pytest.mark.parametrize("end", ["finish", "done", "nothing"])
def test_what_was_held_back_goes_out_when_the_text_ends(play, end):
    proxy = play(no_ssn=policy("no-ssn", REDACT))
    said = chat("the code is ", "123-45", finish="stop" if end == "finish" else None)
    got = ask(proxy, "openai", *(said if end != "nothing" else said[:-1]))
    assert chat_text(got) == "the code is 123-45"
    datas = [d for _, d in events_of(got)]
    assert (datas[-1] == "[DONE]") == (end != "nothing")
    assert not end == "finish" or json.loads(datas[-2])["choices"][0]["finish_reason"] == "stop", "the rest comes before its end"


def test_texts_side_by_side_are_kept_apart(play):
    def chunk(*choices):
        return event({"choices": [{"index": i, "delta": {"content": t}} for i, t in choices]})
    proxy = play(no_ssn=policy("no-ssn", REDACT))
    got = ask(proxy, "openai", chunk((0, "a 123-"), (1, "b 987-65-")), chunk((1, "4321.")), chunk((0, "45-6789.")), b"data: [DONE]\n\n")
    texts = {0: "", 1: ""}
    for _, data in events_of(got)[:-1]:
        for choice in json.loads(data)["choices"]:
            texts[choice["index"]] += choice["delta"]["content"]
    assert texts == {0: "a [ssn].", 1: "b [ssn]."}


def test_arguments_of_a_tool_are_redacted_and_keep_their_name_once(play):
    def call(**function):
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": function}]}}]})
    proxy = play(no_ssn=policy("no-ssn", REDACT))
    got = ask(proxy, "openai", call(name="pay", arguments=""), call(arguments='{"to":"123-45-'), call(arguments='6789"'), call(arguments="}"),
              event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}), b"data: [DONE]\n\n")
    functions = [c["function"] for _, d in events_of(got)[:-1] for c in json.loads(d)["choices"][0]["delta"].get("tool_calls", [])]
    assert json.loads("".join(f.get("arguments", "") for f in functions)) == {"to": "[ssn]"}
    assert [f["name"] for f in functions if "name" in f] == ["pay"]


def test_results_and_notifications_of_mcp(play):
    proxy = play(no_ssn=policy("no-ssn", REDACT))
    note = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": f"saw {SSN}"}}, "message")
    result = event({"jsonrpc": "2.0", "id": "q-1", "result": {"content": [{"type": "text", "text": f"it is {SSN}"}]}}, "message")
    events = [json.loads(d) for _, d in events_of(ask(proxy, "mcp", note, result))]
    assert events[0]["params"]["data"] == "saw [ssn]" and events[1]["result"]["content"][0]["text"] == "it is [ssn]"


def test_what_has_nothing_to_redact_stays_as_it_came(play):
    proxy = play(no_ssn=policy("no-ssn", REDACT))
    said = b': hello\r\nid: 7\r\ndata: {"choices": [ {"index":0, "delta":{"content":"caf\\u00e9 \\/ x."}} ] }\r\n\r\n' \
           b'data: plain text\n\ndata: {"other":1,"choices":[]}\n\ndata: [DONE]\n\n'
    assert ask(proxy, "openai", said) == said


def test_a_shadow_changes_and_holds_nothing_but_counts(play):
    proxy = play(no_ssn=policy("no-ssn", 'mode = "shadow", ' + REDACT))
    said = chat("it is 123-", "45-6789.")
    assert ask(proxy, "openai", *said) == b"".join(said)
    proxy.counted(1, "ephor_policy_redactions_total", policy="no-ssn", what="ssn", mode="shadow")


def test_the_bound_is_configured(play):
    proxy = play({"stream_tail": "16B"}, long=policy("long", 'reply = function(r) r:redact("<begin>.-<end>") end'))
    short = ask(proxy, "openai", *chat("x <beg", "in>1<end> y"))
    assert chat_text(short) == "x [redacted] y"
    spread = ask(proxy, "openai", *chat("x <begin>", "0123456789abcdefghij", "<end> y"))
    assert chat_text(spread) == "x <begin>0123456789abcdefghij<end> y", "documented: longer than the tail before it is a hit"


def test_a_policy_may_start_to_redact_in_the_middle(play):
    proxy = play(later=policy("later", 'event = function(e) if (e.text or ""):find("CONFIDENTIAL") then e:redact("ssn") end end'))
    got = ask(proxy, "openai", *chat(f"{SSN} CONFI", "DENTIAL ", "123-45", "-6789."))
    assert chat_text(got) == f"{SSN} CONFIDENTIAL [ssn]."


# --- judging ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", MODELS)
def test_a_word_that_two_events_share_is_denied_in_the_callers_own_words(play, protocol):
    make, text = MODELS[protocol]
    proxy = play(no_codes=policy("no-codes", 'event = function(e) if (e.text or ""):find("launch code") then return e:deny("not that") end end'))
    events = events_of(ask(proxy, protocol, *make("the lau", "nch co", "de is 7", " never said"), pieces=100000))
    assert "nch co" in events[-2][1], "what came before in the same piece goes out before the refusal"
    assert error_of(protocol, events[-1]) in ("policy.denied", "permission_error")
    assert not any("de is 7" in d for _, d in events[:-1]) and "not that" in events[-1][1]
    proxy.counted(1, "ephor_policy_decisions_total", policy="no-codes", decision="deny")
    proxy.counted(1, "ephor_refusals_total", code="policy.denied", by="no-codes")


def test_an_event_of_mcp_is_denied_for_its_id(play):
    proxy = play(quiet=policy("quiet", 'event = function(e) if e.json.result then return e:deny("no results") end end'))
    note = event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}, "message")
    result = event({"jsonrpc": "2.0", "id": "q-1", "result": {"content": [{"type": "text", "text": "x"}]}}, "message")
    events = events_of(ask(proxy, "mcp", note, result))
    assert len(events) == 2 and error_of("mcp", events[1]) == "policy.denied"


def test_what_an_event_shows(play):
    proxy = play(show=policy("show", '''event = function(e)
      e:log(table.concat({ e.name, tostring(e.kind), tostring(e.index), tostring(e.called), tostring(e.text), tostring(e.delta),
                           tostring(e.event_id), e.model, e.method, #e.data > 0 and "data" or "", e.status }, "|"))
      e:tag("last", e.name)
    end'''))
    ask(proxy, "anthropic",
        event({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "pay", "input": {}}}, "content_block_start"),
        event({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\\\"a\\\""}}, "content_block_delta"),
        b"id: 9\n" + event({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ":1}"}}, "content_block_delta"),
        event({"type": "ping"}, "ping"))
    seen = re.findall(r"show: ([^\"]*(?:\\\\.[^\"]*)*)\"", proxy.log.replace('\\"', "'").replace("\\\\", ""))
    assert seen == ["content_block_start|arguments|2|pay|nil|nil|nil|claude|messages|data|200",
                    "content_block_delta|arguments|2|pay|{'a'|{'a'|nil|claude|messages|data|200",
                    "content_block_delta|arguments|2|pay|{'a':1}|:1}|9|claude|messages|data|200",
                    "ping|nil|0|nil|nil|nil|nil|claude|messages|data|200"], seen


@pytest.mark.parametrize("body", ['error("oops")', "while true do end", 'e:delay("1s")', 'e:header("x-a", "b")', "return e.body"],
                         ids=["error", "endless", "delay", "header", "body"])
def test_a_policy_that_fails_on_an_event_ends_the_stream(play, body):
    proxy = play(bad=policy("bad", f"event = function(e) {body} end"))
    events = events_of(ask(proxy, "openai", *chat("x")))
    assert len(events) == 1 and error_of("openai", events[0]) in ("policy.error", "policy.overrun")


def test_a_shadow_says_no_once_and_all_passes(play):
    proxy = play(shy=policy("shy", 'mode = "shadow", event = function(e) return e:deny("no") end'))
    said = chat("a", "b", "c")
    assert ask(proxy, "openai", *said) == b"".join(said)
    proxy.counted(1, "ephor_policy_decisions_total", policy="shy", decision="shadow_deny")


def test_the_second_policy_sees_what_the_first_made_of_it(play):
    proxy = play(a_redact=policy("a-redact", REDACT),
                 b_look=policy("b-look", 'event = function(e) if (e.text or ""):find("%d") then return e:deny("digits") end end'))
    got = ask(proxy, "openai", *chat("it is 123-4", "5-6789."))
    assert chat_text(got) == "it is [ssn]."


def test_a_reply_that_wants_the_whole_body_stays_blind_unless_it_watches_events(play):
    whole = 'needs_reply = { "body" }, reply = function(r) if r.body:find("x") then return r:deny("x") end end'
    proxy = play(whole=policy("whole", whole), **{"z_not": policy("z-not", "call = function(c) end")})
    caller = None
    try:
        caller = proxy.call("openai")
    except Exception:  # the h1 caller reads chunks, and this answer has a length
        pass
    proxy.counted(1, "ephor_policy_blind_total", policy="whole", reason="streamed")
    proxy.origin.say(None)

    both = play(both=policy("both", whole + ', event = function(e) end'), whole=policy("whole", "call = function(c) end"))
    said = chat("xyz")
    assert ask(both, "openai", *said) == b"".join(said)


def test_compressed_events_are_asked_for_plain_only_where_a_policy_looks(play):
    watched = play(no_ssn=policy("no-ssn", REDACT))
    caller = watched.call("openai", headers=[("accept-encoding", "gzip, br")])
    watched.origin.say(None)
    caller.to_end()
    assert watched.origin.headers[0].get("accept-encoding") == "identity"
    free = play(no_ssn=policy("no-ssn", "call = function(c) end"))
    caller = free.call("openai", headers=[("accept-encoding", "gzip, br")])
    free.origin.say(None)
    caller.to_end()
    assert free.origin.headers[0].get("accept-encoding") == "gzip, br"
