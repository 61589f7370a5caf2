"""Two web servers behind a proxy, as one process: `backends.py RECORD NAME=ADDRESS:PORT...`; for a bare machine.

Each request is one JSON line in RECORD before it is answered. `/die` ends the connection without an answer where the
name ends in 1. A server whose name is written to standard input stops listening. Prints `ready` once all listen.
"""

import asyncio
import json
import sys
from pathlib import Path


class Backend:
    """One server: HTTP/1.1, one request for a connection."""

    def __init__(self, name: str, record: Path) -> None:
        self.name = name
        self._record = record

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Record a request and answer it as its path says."""
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers: dict[str, list[str]] = {}
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        await reader.readexactly(int(headers.get("content-length", ["0"])[0]))
        if path != "/health":
            line = json.dumps({"server": self.name, "method": method, "path": path, "headers": headers})
            with self._record.open("a", encoding="utf-8") as out:
                out.write(line + "\n")
            if path.endswith("/die") and self.name.endswith("1"):
                return
        body = self.name.encode()
        length = b"Content-Length: %d" % len(body)
        writer.write(b"\r\n".join([b"HTTP/1.1 200 OK", b"Connection: close", b"Server: chatty/1.0", length, b"", body]))
        await writer.drain()


async def main(record: str, *places: str) -> None:
    """Serve until standard input ends."""
    listening: dict[str, asyncio.Server] = {}
    for place in places:
        name, _, where = place.partition("=")
        address, _, port = where.rpartition(":")
        listening[name] = await asyncio.start_server(Backend(name, Path(record)).answer, address, int(port))
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        listening[line].close()
        print("closed", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
