"""limits_client.py openai|anthropic URL: the same as node/limits_client.mjs, with the SDKs of Python."""
import sys

from steps import step
from talk import talk

call, stream = talk(*sys.argv[1:])

step("call", lambda: call("law-1"))
step("stream", lambda: stream("law-1"))
step("over", lambda: call("law-1"))
step("stream over", lambda: stream("law-1"))
step("another model", lambda: call("law-2"))
