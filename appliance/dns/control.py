"""Unbound's remote control over its Unix socket (unbound-control(8)): one command, one answer, one connection."""

import asyncio
from pathlib import Path

from appliance.errors import ApplianceError, Unavailable

MOST_ANSWER_BYTES = 2**20
VERSION = "UBCT1"


class UnboundRefused(ApplianceError):
    """Unbound answered a command with an error."""

    code = "dns-command-refused"
    hint = "`alpha-ren logs dns` shows what Unbound says."


async def command(socket: Path, line: str, *, deadline_s: float = 5.0) -> str:
    """Return Unbound's answer; raise Unavailable where it does not listen, UnboundRefused where it refuses."""
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(f"{VERSION} {line}\n".encode())
                await writer.drain()
                answer = (await reader.read(MOST_ANSWER_BYTES)).decode(errors="replace").strip()
            finally:
                writer.close()
    except TimeoutError as error:
        raise Unavailable(f"Unbound did not answer within {deadline_s:g} s.") from error
    except OSError as error:
        raise Unavailable(f"Unbound's control socket {socket} does not answer: {error}.") from error
    if answer.startswith("error"):
        raise UnboundRefused(f"Unbound refused `{line}`: {answer.removeprefix('error').strip()}.")
    return answer
