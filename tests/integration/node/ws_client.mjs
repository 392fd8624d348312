// ws_client.mjs PORT: texts, a megabyte, a ping and a close code, each answered; tells what came back.
import { createRequire } from "node:module";
import { once } from "node:events";
const { WebSocket } = createRequire(process.env.EPHOR_MODULES)("ws");
const socket = new WebSocket(`ws://127.0.0.1:${process.argv[2]}/chat`);
await once(socket, "open");
const told = { texts: 0, bytes: 0, pong: false };
for (let i = 0; i < 50; i++) {
  socket.send(`text ${i}`);
  const [data] = await once(socket, "message");
  if (data.toString() === `text ${i}`) told.texts++;
}
socket.send(Buffer.alloc(1 << 20, 7));
told.bytes = (await once(socket, "message"))[0].length;
socket.ping("p");
await once(socket, "pong");
told.pong = true;
socket.close(4001);
told.closed = (await once(socket, "close"))[0];
console.log(JSON.stringify(told));
