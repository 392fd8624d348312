"""What the clients here share: a step prints a line with what came of it, and how long it took."""
import json
import time


def step(name, run):
    begin = time.monotonic()
    try:
        value = run()
        line = {"value": value.model_dump(mode="json") if hasattr(value, "model_dump") else value}
    except Exception as e:
        response, body = getattr(e, "response", None), getattr(e, "body", None)
        told = body if isinstance(body, dict) else {}
        line = {"thrown": type(e).__name__, "status": getattr(e, "status_code", None), "code": getattr(e, "code", None),
                "type": getattr(e, "type", None), "message": str(e), "request": getattr(e, "request_id", None),
                "wait": response.headers.get("retry-after") if response is not None else None,
                "decision": told.get("decision") or told.get("request_id")}
    print(json.dumps({"step": name, **line, "ms": (time.monotonic() - begin) * 1000}), flush=True)


def all_of(stream):
    """All of a stream; what came before it raised is printed."""
    got = []
    try:
        for event in stream:
            got.append(event.model_dump(mode="json"))
    except Exception:
        print(json.dumps({"step": "before", "value": got}), flush=True)
        raise
    return got
