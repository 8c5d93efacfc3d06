"""Plain TCP, HTTP answers and WebSocket frames, made and read by hand."""

import base64
import os
import socket
import struct
from typing import NamedTuple

from service import PATIENCE_S


class Answer(NamedTuple):
    status: int
    version: str
    headers: dict
    body: bytes


class Wire:
    """One TCP connection to the service."""

    def __init__(self, service):
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Closes with a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def _take(self, count):
        while len(self.buffer) < count:
            assert self._more(), f"closed after {self.buffer!r}"
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def answer(self, has_body=True):
        """The next HTTP answer."""
        while b"\r\n\r\n" not in self.buffer:
            assert self._more(), f"closed instead of an answer; {self.buffer!r} came"
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        headers = {name.lower(): value.strip() for name, value in (each.split(":", 1) for each in lines)}
        if not has_body or int(status) < 200 or int(status) in (204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join(self._chunks())
        elif "content-length" in headers:
            body = self._take(int(headers["content-length"]))
        else:
            body = self.closed()
        return Answer(int(status), version, headers, body)

    def _chunks(self):
        while True:
            while b"\r\n" not in self.buffer:
                assert self._more(), "closed inside a chunked body"
            size, self.buffer = self.buffer.split(b"\r\n", 1)
            chunk = self._take(int(size, 16) + 2)[:-2]
            if not chunk:
                return
            yield chunk

    def closed(self):
        """Waits for the end of the connection; answers what came before it."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            pass
        rest, self.buffer = self.buffer, b""
        return rest


class WebSocket(Wire):
    """A connection that was upgraded; frames as (opcode, payload)."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, service, sid=None, behind=b""):
        """`sid` is a session on polling, to be upgraded. `behind` leaves in one segment with the request.

        With either, what comes behind the 101 is left to the caller."""
        super().__init__(service)
        key = base64.b64encode(os.urandom(16)).decode()
        query = "EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
        head = (
            f"GET /socket.io/?{query} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        self.send(head.encode() + behind)
        assert self.answer(has_body=False).status == 101
        if not sid and not behind:
            opcode, payload = self.frame()
            assert (opcode, payload[:1]) == (self.TEXT, b"0")

    def frame(self):
        first, second = self._take(2)
        assert second & 0x80 == 0, "a server does not mask"
        assert first & 0xF0 == 0x80, "one frame a message, no reserved bits"
        length = second & 0x7F
        if length > 125:
            width = 2 if length == 126 else 8
            length = int.from_bytes(self._take(width), "big")
        return first & 0x0F, self._take(length)

    def close_code(self):
        """The code of the close frame that must come next, and that the connection ends behind it."""
        opcode, payload = self.frame()
        assert opcode == self.CLOSE, (opcode, payload)
        # An answer to the close frame, so that neither side waits for the other.
        try:
            self.send(frame(self.CLOSE, payload[:2]))
        except OSError:
            pass
        self.closed()
        return int.from_bytes(payload[:2], "big") if payload else None


def frame(opcode, payload=b"", fin=True, reserved=0, mask=b"\x01\x02\x03\x04", length=None):
    """A client's frame. `length` claims another length than the payload's; `mask=None` leaves it unmasked."""
    length = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    masked = 0x80 if mask else 0
    if length < 126:
        head += bytes([masked | length])
    elif length < 65536:
        head += bytes([masked | 126]) + struct.pack("!H", length)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", length)
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
