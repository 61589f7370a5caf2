"""Systems outside the appliance, on this computer's loopback: an HTTP server that takes deliveries, and a smarthost."""

import http.server
import queue
import socketserver
import threading
from typing import Self

import msgspec

LOOPBACK = "127.0.0.1"


class Delivery(msgspec.Struct, frozen=True):
    """A request that the HTTP server took."""

    path: str
    idempotency_key: str
    body: bytes


class _Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.taken.put(Delivery(self.path, self.headers.get("Idempotency-Key", ""), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what came is in `taken`."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    taken: "queue.Queue[Delivery]"


class Target:
    """An HTTP server that can go down and come back on the same port; what it took survives that."""

    def __init__(self) -> None:
        self.taken: queue.Queue[Delivery] = queue.Queue()
        self.port = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def up(self) -> Self:
        """Listen, at the second time on the same port as before."""
        self._server = _Server((LOOPBACK, self.port), _Quiet)
        self._server.taken = self.taken
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="target")
        self._thread.start()
        return self

    def down(self) -> None:
        """Close the port; whoever connects is refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def next(self, deadline_s: float) -> Delivery:
        """The next delivery; `queue.Empty` at the deadline."""
        return self.taken.get(timeout=deadline_s)


class _SmtpHandler(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as one server that accepts everything needs."""

    server: "_SmtpServer"

    def handle(self) -> None:
        self._say("220 smarthost")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self._say("354 go on")
                self.server.mails.put(self._message())
                self._say("250 taken")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            elif verb in (b"HELO", b"EHLO", b"MAIL", b"RCPT", b"RSET", b"NOOP"):
                self._say("250 fine")
            else:
                self._say("502 not known here")

    def _message(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)

    def _say(self, words: str) -> None:
        self.wfile.write(words.encode() + b"\r\n")


class _SmtpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    mails: "queue.Queue[bytes]"


class Smarthost:
    """An SMTP server that accepts every mail."""

    def __init__(self) -> None:
        self.mails: queue.Queue[bytes] = queue.Queue()
        self._server = _SmtpServer((LOOPBACK, 0), _SmtpHandler)
        self._server.mails = self.mails
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="smarthost")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
