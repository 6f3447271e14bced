"""A provider that answers at once, as cheaply as Python can: what is measured is whatever stands before it.

    python -m bench.upstream PORT

A whole reply goes out in one piece.  Of a stream every event is a write of its own, `gap_ms` apart: "[gap_ms=5]" in
the prompt, which every gateway passes on; 0: as fast as the socket takes them.  "[hold]" sends one event and waits.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

EVENTS = 200
USAGE = b'{"prompt_tokens":1400,"completion_tokens":200,"total_tokens":1600}'
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello there, how can I help you today?"},"finish_reason":"stop"}],'
    b'"usage":' + USAGE + b"}"
)
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(choices: bytes, usage: bytes = b"null") -> bytes:
    data = (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini",'
        b'"choices":[%s],"usage":%s}\n\n' % (choices, usage)
    )
    return b"%x\r\n%s\r\n" % (len(data), data)


TOKEN = _event(b'{"index":0,"delta":{"content":" word"},"finish_reason":null}')
DONE = b"data: [DONE]\n\n"
END = (
    _event(b'{"index":0,"delta":{},"finish_reason":"stop"}')
    + _event(b"", USAGE)
    + b"%x\r\n%s\r\n0\r\n\r\n" % (len(DONE), DONE)
)


class Provider(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        self._received = body[length:]
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(REPLY)
            return
        self._transport.write(HEAD + TOKEN)
        if b"[hold]" not in body:
            gap = body.partition(b"[gap_ms=")[2].partition(b"]")[0]
            self._loop.call_later(int(gap or 0) / 1000, self._next, EVENTS - 1, int(gap or 0) / 1000)

    def _next(self, left: int, gap_s: float) -> None:
        if self._transport.is_closing():
            return
        if not left:
            self._transport.write(END)
            return
        self._transport.write(TOKEN)
        self._loop.call_later(gap_s, self._next, left - 1, gap_s)


async def serve(port: int) -> None:
    """Until killed."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
