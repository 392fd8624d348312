"""mcp_client.py MODE URL: what node/mcp_client.mjs does, with Python's SDK. MODE: session (1.x), sse (either, by 2024-11-05's transport), else of
Client (2.x): legacy, a revision."""
import asyncio
import contextlib
import json
import sys
import time

mode, url = sys.argv[1:]


@contextlib.asynccontextmanager
async def connect():
    if mode == "sse":
        from mcp import ClientSession
        from mcp.client.sse import sse_client
        async with sse_client(url) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            yield session
    elif mode == "session":
        from mcp import ClientSession
        from mcp.client.streamable_http import streamable_http_client
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            yield session
    else:
        from mcp import Client
        async with Client(url, mode=mode) as client:
            yield client


def plain(value):
    return value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


async def step(name, call):
    start = time.perf_counter()
    try:
        told = {"value": plain(await call)}
    except Exception as error:
        facts = getattr(error, "error", None)
        told = {"thrown": type(error).__name__, "code": getattr(facts, "code", None), "message": str(error),
                "data": getattr(facts, "data", None)}
    print(json.dumps({"step": name, "ms": (time.perf_counter() - start) * 1000, **told}))


async def names(listing, member, name="name"):
    return [str(getattr(entry, name)) for entry in getattr(await listing, member)]


async def main():
    progress = []

    async def on_progress(done, total, message):
        progress.append(done)

    async with connect() as client:
        def echo(message):
            return client.call_tool("echo", {"message": message})
        await step("tools", names(client.list_tools(), "tools"))
        await step("prompts", names(client.list_prompts(), "prompts"))
        await step("resources", names(client.list_resources(), "resources", "uri"))
        await step("echo", echo("hello"))
        await step("shell", client.call_tool("shell", {"command": "ls"}))
        await step("echo after shell", echo("again"))
        await step("count", client.call_tool("count", {"to": 3}, progress_callback=on_progress))
        print(json.dumps({"step": "progress", "ms": 0, "value": progress}))
        await step("greeting", client.get_prompt("greeting"))
        await step("secret-prompt", client.get_prompt("secret-prompt"))
        await step("echo after secret-prompt", echo("after the prompt"))
        await step("public", client.read_resource("note://public"))
        await step("secret", client.read_resource("note://secret"))
        await step("echo after secret", echo("at last"))

asyncio.run(main())
