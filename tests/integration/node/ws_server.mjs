// ws_server.mjs PORT: sends back each message.
import { createRequire } from "node:module";
const { WebSocketServer } = createRequire(process.env.EPHOR_MODULES)("ws");
const server = new WebSocketServer({ port: Number(process.argv[2]), host: "127.0.0.1" });
server.on("connection", (socket) => socket.on("message", (data, binary) => socket.send(data, { binary })));
