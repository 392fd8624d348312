"""a2a_client.py BINDING URL [stream [TEXT]]: one client of the SDK that is there (0.3 or 1.x) over BINDING (JSONRPC, HTTP+JSON, GRPC) that is
allowed and refused in turns; a line of JSON for each."""
import asyncio
import json
import sys
import time

import grpc
import httpx
from a2a.client import ClientConfig, ClientFactory

try:
    from a2a.types import a2a_pb2
except ImportError:
    a2a_pb2 = None

binding, url = sys.argv[1:3]
only = sys.argv[3:4] == ["stream"]


def config(streaming, http):
    bindings = {"supported_protocol_bindings" if a2a_pb2 else "supported_transports": [binding]}
    return ClientConfig(streaming=streaming, httpx_client=http, grpc_channel_factory=grpc.aio.insecure_channel, **bindings)


def card():
    if a2a_pb2:
        return a2a_pb2.AgentCard(name="echo", capabilities=a2a_pb2.AgentCapabilities(streaming=True), supported_interfaces=[
            a2a_pb2.AgentInterface(protocol_binding=binding, url=url, protocol_version="1.0")])
    from a2a.types import AgentCapabilities, AgentCard
    return AgentCard(name="echo", description="d", version="1", url=url, preferred_transport=binding, skills=[],
                     capabilities=AgentCapabilities(streaming=True), default_input_modes=["text"], default_output_modes=["text"])


def message(text):
    if a2a_pb2:
        return a2a_pb2.SendMessageRequest(message=a2a_pb2.Message(message_id="m", role="ROLE_USER", parts=[a2a_pb2.Part(text=text)]))
    from a2a.types import Message, Part, Role, TextPart
    return Message(message_id="m", role=Role.user, parts=[Part(root=TextPart(text=text))])


def shown(event):
    if a2a_pb2:
        from google.protobuf.json_format import MessageToDict
        event = MessageToDict(event)
        event.get("message", {}).pop("messageId", None)
        return event
    event = event[1] or event[0] if isinstance(event, tuple) else event
    told = event.model_dump(mode="json", exclude_none=True)
    told.pop("message_id", None)
    return told


async def say(client, text):
    events = []
    async for event in client.send_message(message(text)):
        events.append(shown(event))
        if only:
            print(json.dumps({"step": "event", "value": events[-1]}), flush=True)
    return events


async def step(name, call):
    start = time.monotonic()
    try:
        told = {"value": await call}
    except Exception as error:
        chain, e = [], error
        while e and len(chain) < 4:
            chain.append(type(e).__name__)
            e = e.__cause__
        told = {"thrown": chain, "message": str(error), "all": f"{error} {error!r} {vars(error)} {error.__cause__!r}"}
    print(json.dumps({"step": name, "ms": (time.monotonic() - start) * 1000, **told}), flush=True)


async def main():
    async with httpx.AsyncClient() as http:
        plain, streams = (ClientFactory(config(streaming, http)).create(card()) for streaming in (False, True))
        if only:
            await step("stream", say(streams, "hello"))
            for text in sys.argv[4:]:
                await step("after it", say(streams, text))
            return
        await step("first", say(plain, "hello"))
        await step("denied", say(plain, "a secret"))
        await step("after denied", say(plain, "again"))
        await step("stream", say(streams, "hello"))
        await step("denied stream", say(streams, "a secret"))
        await step("after denied stream", say(streams, "again"))
        await step("last", say(plain, "last"))

asyncio.run(main())
