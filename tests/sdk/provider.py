"""A stand-in for a provider of language models, OpenAI's and Anthropic's API: the same answers to the same questions, to compare
what came direct with what came through ephor. The model's name says what it does:

  plain     says "the answer is 42"
  tools     calls the first tool that is offered, with arguments in pieces; when the result is there, says it
  leaky     says words of which some are secret, each cut over two events
  broken    breaks the connection in the middle of a stream; unfinished: ends it properly, without the API's own end
"""
import contextlib
import http.server
import json
import threading

ID = {"x-request-id": "req_upstream", "request-id": "req_upstream"}
WORDS = {"leaky": ["the code is 078", "-05-1120", " and mail is ann@exa", "mple.com, bye"]}


class Provider:
    """Runs while it is entered; `seen` has the requests as (path, headers, body). `tls` makes it a provider of https."""

    def __init__(self, address=("127.0.0.1", 0), tls=None):
        self.address, self.tls = address, tls

    def __enter__(self):
        provider = self
        self.seen = []

        class Handler(Requests):
            pass
        Handler.provider = provider
        self.server = http.server.ThreadingHTTPServer(self.address, Handler)
        if self.tls:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def models(self):
        return [body.get("model") for _, _, body in self.seen]


class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.split("?")[0]
        self.provider.seen.append((self.path, dict(self.headers), body))
        for suffix, answer in ROUTES:
            if path.endswith(suffix):
                return answer(self, body)
        return self.json({"error": {"message": f"no such path: {path}"}}, 404)

    def json(self, value, status=200):
        text = json.dumps(value).encode()
        self.send_response(status)
        for name, text_of in {"content-type": "application/json", "content-length": len(text), **ID}.items():
            self.send_header(name, text_of)
        self.end_headers()
        self.wfile.write(text)

    def events(self, body, events):
        """[(name or None, data)]: in the middle of an event's bytes the stream of a model that breaks is over."""
        self.send_response(200)
        for name, value in {"content-type": "text/event-stream", "transfer-encoding": "chunked", **ID}.items():
            self.send_header(name, value)
        self.end_headers()
        half = len(events) // 2
        for at, (name, data) in enumerate(events):
            text = (f"event: {name}\n" if name else "") + f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
            if at == half and body["model"] == "unfinished":
                break
            if at == half and body["model"] == "broken":
                self.chunk(text[:len(text) // 2])
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(2)
                return
            self.chunk(text)
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text):
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


def words(body, said=None):
    return said or WORDS.get(body["model"]) or ["the ans", "wer is", " 42"]


def tool_result(messages):
    """What a tool has said last in this conversation, whatever the API; None: nothing yet."""
    for m in reversed(messages if isinstance(messages, list) else []):
        if m.get("role") == "tool":
            return m["content"] if isinstance(m["content"], str) else "".join(p["text"] for p in m["content"])
        if m.get("type") == "function_call_output":
            return m["output"] if isinstance(m["output"], str) else json.dumps(m["output"])
        for part in m["content"] if isinstance(m.get("content"), list) else []:
            if part.get("type") == "tool_result":
                return part["content"] if isinstance(part["content"], str) else "".join(p["text"] for p in part["content"])
    return None


def wanted_tool(body, messages):
    """(name, arguments) of the call to make, or None; and what to say then."""
    names = [t.get("name") or t["function"]["name"] for t in body.get("tools") or [] if t.get("name") or "function" in t]
    wanted = body["model"].partition(":")[2]
    result = tool_result(messages)
    if not body["model"].startswith("tools") or result is not None or not names:
        return None, [f"the tool said: {result}"] if result is not None else None
    name = wanted if wanted in names else names[0]
    return (name, json.dumps({"message": "hi", "command": "ls"})), None


def usage(names, body, said):
    n_in, n_out = len(json.dumps(body)) // 4, len("".join(said)) // 4
    return dict(zip(names, (n_in, n_out, n_in + n_out)))


# --- OpenAI -------------------------------------------------------------------------------------------------------------
def chat(r, body):
    call, said = wanted_tool(body, body["messages"])
    said = words(body, said)
    head = {"id": "chatcmpl-1", "created": 1764000000, "model": body["model"]}
    counts = usage(("prompt_tokens", "completion_tokens", "total_tokens"), body, said)
    function = {"name": call[0], "arguments": call[1]} if call else None
    if not body.get("stream"):
        message = {"role": "assistant", "content": None if call else "".join(said), "refusal": None}
        if call:
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        return r.json({**head, "object": "chat.completion", "usage": counts, "choices": [
            {"index": i, "message": message, "finish_reason": "tool_calls" if call else "stop", "logprobs": None}
            for i in range(body.get("n") or 1)]})
    deltas = [{"role": "assistant", "content": "" if not call else None}]
    if call:
        half = len(call[1]) // 2
        deltas += [{"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": call[0], "arguments": ""}}]}]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in (call[1][:half], call[1][half:])]
    else:
        deltas += [{"content": word} for word in said]
    chunks = [{"index": 0, "delta": d, "finish_reason": None} for d in deltas]
    chunks.append({"index": 0, "delta": {}, "finish_reason": "tool_calls" if call else "stop"})
    events = [(None, {**head, "object": "chat.completion.chunk", "choices": [c], "usage": None}) for c in chunks]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append((None, {**head, "object": "chat.completion.chunk", "choices": [], "usage": counts}))
    r.events(body, [*events, (None, "[DONE]")])


def responses(r, body):
    call, said = wanted_tool(body, body["input"])
    said = words(body, said)
    counts = usage(("input_tokens", "output_tokens", "total_tokens"), body, said)
    counts.update(input_tokens_details={"cached_tokens": 0}, output_tokens_details={"reasoning_tokens": 0})
    if call:
        item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": call[0], "arguments": call[1], "status": "completed"}
    else:
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "".join(said), "annotations": []}]}
    whole = {"id": "resp_1", "object": "response", "created_at": 1764000000, "model": body["model"], "status": "completed", "error": None,
             "incomplete_details": None, "instructions": body.get("instructions"), "metadata": {}, "output": [item], "usage": counts,
             "parallel_tool_calls": True, "temperature": 1, "tool_choice": "auto", "tools": [], "top_p": 1}
    if not body.get("stream"):
        return r.json(whole)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    at = {"item_id": item["id"], "output_index": 0}
    events = [("response.created", {"response": begun}), ("response.in_progress", {"response": begun})]
    if call:
        half = len(call[1]) // 2
        events.append(("response.output_item.added", {"output_index": 0, "item": {**item, "arguments": "", "status": "in_progress"}}))
        events += [("response.function_call_arguments.delta", {**at, "delta": piece}) for piece in (call[1][:half], call[1][half:])]
        events.append(("response.function_call_arguments.done", {**at, "name": call[0], "arguments": call[1]}))
    else:
        at["content_index"] = 0
        events.append(("response.output_item.added", {"output_index": 0, "item": {**item, "content": [], "status": "in_progress"}}))
        events.append(("response.content_part.added", {**at, "part": {"type": "output_text", "text": "", "annotations": []}}))
        events += [("response.output_text.delta", {**at, "delta": word, "logprobs": []}) for word in said]
        events.append(("response.output_text.done", {**at, "text": "".join(said), "logprobs": []}))
        events.append(("response.content_part.done", {**at, "part": item["content"][0]}))
    events += [("response.output_item.done", {"output_index": 0, "item": item}), ("response.completed", {"response": whole})]
    r.events(body, [(name, {"type": name, "sequence_number": n, **data}) for n, (name, data) in enumerate(events)])


def embeddings(r, body):
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vector = "AACAPwAAAEAAAEBA" if body.get("encoding_format") == "base64" else [1.0, 2.0, 3.0]
    r.json({"object": "list", "model": body["model"], "usage": {"prompt_tokens": 3, "total_tokens": 3},
            "data": [{"object": "embedding", "index": i, "embedding": vector} for i in range(len(texts))]})


def completions(r, body):
    r.json({"id": "cmpl-1", "object": "text_completion", "created": 1764000000, "model": body["model"],
            "choices": [{"index": 0, "text": "".join(words(body)), "finish_reason": "stop", "logprobs": None}],
            "usage": usage(("prompt_tokens", "completion_tokens", "total_tokens"), body, words(body))})


# --- Anthropic ----------------------------------------------------------------------------------------------------------
def messages(r, body):
    call, said = wanted_tool(body, body["messages"])
    said = words(body, said)
    counts = usage(("input_tokens", "output_tokens"), body, said)
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
    block = {"type": "tool_use", "id": "toolu_1", "name": call[0], "input": json.loads(call[1])} if call else \
        {"type": "text", "text": "".join(said)}
    reason = "tool_use" if call else "end_turn"
    if not body.get("stream"):
        return r.json({**head, "content": [block], "stop_reason": reason, "usage": counts})
    if call:
        half = len(call[1]) // 2
        start = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in (call[1][:half], call[1][half:])]
    else:
        start, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": word} for word in said]
    events = [{"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": {**counts, "output_tokens": 1}}},
              {"type": "content_block_start", "index": 0, "content_block": start}, {"type": "ping"},
              *[{"type": "content_block_delta", "index": 0, "delta": d} for d in deltas],
              {"type": "content_block_stop", "index": 0},
              {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None},
               "usage": {"output_tokens": counts["output_tokens"]}},
              {"type": "message_stop"}]
    return r.events(body, [(e["type"], e) for e in events])


def count_tokens(r, body):
    r.json({"input_tokens": len(json.dumps(body)) // 4})


def batches(r, body):
    r.json({"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress", "created_at": "2026-11-25T00:00:00Z",
            "expires_at": "2026-11-26T00:00:00Z", "archived_at": None, "cancel_initiated_at": None, "ended_at": None, "results_url": None,
            "request_counts": {"processing": len(body["requests"]), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}})


ROUTES = (("/chat/completions", chat), ("/responses", responses), ("/embeddings", embeddings), ("/v1/completions", completions),
          ("/v1/messages", messages), ("/count_tokens", count_tokens), ("/messages/batches", batches))
