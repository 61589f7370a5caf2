"""Ports of machines on this computer's loopback address.

The listening socket is opened outside, before the keeper enters its own network namespace, and keeps listening there;
what it accepts is connected onwards from inside the lab. So a browser reaches the console, and no route or rule is
touched.
"""

import asyncio
import contextlib
import errno
import socket

from scripts.labs.errors import LabError

LOOPBACK = "127.0.0.1"
SHIFT = 8000
"""Port 443 is published as 8443, or the next free port after it."""
TRIES = 200


def listen(port: int) -> socket.socket:
    """Return a socket that listens on the loopback address, at the free port nearest above `port` + 8000."""
    for candidate in range(port + SHIFT if port + SHIFT <= 65000 else port, 65536)[:TRIES]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, candidate))
            listening.listen(64)
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            listening.setblocking(False)
            return listening
    raise LabError(f"No port near {port + SHIFT} is free on {LOOPBACK}.")


async def serve(listening: socket.socket, address: str, port: int) -> None:
    """Connect everyone who comes to `listening` with `address`:`port`; runs until cancelled."""

    async def join(near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                far_reader, far_writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            near_writer.transport.abort()  # the machine is off, or nothing answers there: say so as it would
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(near_reader, far_writer))
            group.create_task(_copy(far_reader, near_writer))
        near_writer.close()
        far_writer.close()

    async with await asyncio.start_server(join, sock=listening) as server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        return
    writer.transport.abort()
