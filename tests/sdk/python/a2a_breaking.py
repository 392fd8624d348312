"""a2a_breaking.py PORT: answers each call with one whole event of Agent2Agent and a piece of the next, then cuts the connection."""
import json
import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.rfile.read1(65536)
            if not more:
                return
            head += more
        head, body = head.split(b"\r\n\r\n", 1)
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
        while len(body) < length:
            body += self.rfile.read1(65536)
        asked = json.loads(body)
        old = b"a2a-version: 1" not in head.lower()
        task = {"id": "t1", "contextId": "c1"}
        if old and "jsonrpc" in asked:
            result = {"kind": "task", **task, "status": {"state": "working"}}
        else:
            result = {"task": {**task, "status": {"state": "TASK_STATE_WORKING"}}}
        event = {"jsonrpc": "2.0", "id": asked["id"], "result": result} if "jsonrpc" in asked else result
        data = f"data: {json.dumps(event)}\n\n".encode()
        out = data + data[:20]
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                         + f"{len(out):x}\r\n".encode() + out + b"\r\n")
        self.wfile.flush()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
