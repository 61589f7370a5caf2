"""An SMTP server that keeps what it gets: `python smtp_sink.py HOST PORT RECORD`.

Every mail is appended to the file RECORD as one JSON line before it is accepted. It prints `ready` once it listens.
"""

import asyncio
import json
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Sink:
    """Records every message."""

    def __init__(self, record: Path) -> None:
        self._record = record

    async def handle_DATA(  # noqa: N802 - the library's name
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Record one mail, then accept it."""
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=default)
        body = mail.get_body(("plain",))
        line = json.dumps(
            {
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "subject": str(mail["Subject"]),
                "message_id": str(mail["Message-ID"]),
                "body": body.get_content() if body else "",
                "peer": str(session.peer),
            }
        )
        with self._record.open("a", encoding="utf-8") as out:
            out.write(line + "\n")
        return "250 kept"


async def main(host: str, port: int, record: Path) -> None:
    """Listen until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Sink(record), hostname="sink"), host, port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
