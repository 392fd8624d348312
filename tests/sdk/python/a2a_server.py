"""a2a_server.py HTTP_PORT GRPC_PORT: an agent of A2A 1.0 that says what it was told, in JSON-RPC (/rpc), REST (/rest) and gRPC."""
import asyncio
import sys

import grpc
import uvicorn
from a2a.helpers import get_message_text, new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import a2a_pb2, a2a_pb2_grpc
from starlette.applications import Starlette

http, grpc_port = int(sys.argv[1]), int(sys.argv[2])


class Echo(AgentExecutor):
    async def execute(self, context, event_queue):
        text = get_message_text(context.message)
        print("told", text, flush=True)
        await event_queue.enqueue_event(new_text_message("echo " + text, context_id="ctx"))

    async def cancel(self, context, event_queue):
        pass


def card():
    bindings = [("JSONRPC", f"http://127.0.0.1:{http}/rpc"), ("HTTP+JSON", f"http://127.0.0.1:{http}/rest"),
                ("GRPC", f"127.0.0.1:{grpc_port}")]
    return a2a_pb2.AgentCard(
        name="echo", description="says what it was told", version="1", default_input_modes=["text"], default_output_modes=["text"],
        capabilities=a2a_pb2.AgentCapabilities(streaming=True),
        supported_interfaces=[a2a_pb2.AgentInterface(protocol_binding=b, url=u, protocol_version="1.0") for b, u in bindings],
        skills=[a2a_pb2.AgentSkill(id="echo", name="echo", description="echo", tags=["echo"])])


async def main():
    handler = DefaultRequestHandler(Echo(), InMemoryTaskStore(), card())
    server = grpc.aio.server()
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    app = Starlette(routes=[*create_jsonrpc_routes(handler, "/rpc"), *create_rest_routes(handler, path_prefix="/rest")])
    await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=http, log_level="warning")).serve()

asyncio.run(main())
