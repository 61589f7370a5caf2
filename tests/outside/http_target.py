"""An HTTP server that takes deliveries: `python http_target.py HOST PORT RECORD [STATUS | hang-first]`.

Every request is appended to the file RECORD as one JSON line before it is answered with STATUS (200). With `hang-first`
the very first request is recorded but never answered. It prints `ready` once it listens.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def handler(record: Path, status: int, *, hang_first: bool) -> type[BaseHTTPRequestHandler]:
    """Return a handler class that records to `record` and answers with `status`."""
    hang = threading.Semaphore(1 if hang_first else 0)

    class Target(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            line = json.dumps(
                {
                    "at": time.time(),
                    "method": self.command,
                    "path": self.path,
                    "key": self.headers.get("Idempotency-Key", ""),
                    "type": self.headers.get("Content-Type", ""),
                    "body": body.decode("utf-8", "replace"),
                    "peer": self.client_address[0],
                }
            )
            with record.open("a", encoding="utf-8") as out:
                out.write(line + "\n")
            if hang.acquire(blocking=False):
                threading.Event().wait()
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_PATCH = do_POST  # noqa: N815 - the standard library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Say nothing: the record says it all."""

    return Target


if __name__ == "__main__":
    host, port, path, *mood = sys.argv[1:]
    hang_first = mood == ["hang-first"]
    status = int(mood[0]) if mood and not hang_first else 200
    server = ThreadingHTTPServer((host, int(port)), handler(Path(path), status, hang_first=hang_first))
    print("ready", flush=True)
    server.serve_forever()
