"""egress_client.py openai|anthropic: the same as node/egress_client.mjs, with the SDKs of Python."""
import sys

from steps import step
from talk import talk

call, stream = talk(*sys.argv[1:])

step("allowed", lambda: call("plain"))
step("forbidden", lambda: call("forbidden"))
step("allowed again", lambda: call("plain"))
step("stream", lambda: stream("plain"))
step("forbidden stream", lambda: stream("forbidden"))
step("leaky stream", lambda: stream("leaky"))
step("broken stream", lambda: stream("broken"))
step("allowed at last", lambda: call("plain"))
