"""A client for NATS JetStream as lean as Python allows: one write for many, no task or future per message.

The protocol is NATS's own text (docs.nats.io, "Client Protocol"); JetStream answers each publish on its reply subject.
"""

import json
import select
import socket
from collections.abc import Sequence

Message = tuple[str, str, bytes]
"""Subject, reply subject, body."""


class Client:
    """One connection; one stream with one subject to publish to or to consume from."""

    def __init__(self, port: int, queue: str) -> None:
        self._queue = queue
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._early: list[Message] = []
        self._sent = 0
        self._inbox = f"_INBOX.{id(self):x}"
        options = json.dumps({"verbose": False, "pedantic": False, "headers": False, "no_responders": False})
        self._socket.sendall(f"CONNECT {options}\r\nSUB {self._inbox}.* 1\r\nPING\r\n".encode())
        while b"PONG" not in self._rest:
            self._rest += self._received()
        self._rest = b""

    def _received(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("NATS has closed the connection")
        return data

    def _read(self) -> list[Message]:
        """Return what has come whole, after waiting for at least some bytes."""
        if self._early:
            messages, self._early = self._early, []
            return messages
        messages = []
        data = self._rest + self._received()
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            words = data[at:end].decode().split(" ")
            if words[0] == "MSG":
                after = end + 2 + int(words[-1])
                if len(data) < after + 2:
                    break
                messages.append((words[1], words[3] if len(words) == 5 else "", data[end + 2 : after]))
                at = after + 2
            else:
                at = end + 2
                if words[0] == "PING":
                    self._socket.sendall(b"PONG\r\n")
                elif words[0] == "-ERR":
                    raise RuntimeError(" ".join(words))
        self._rest = data[at:]
        return messages

    def _ask(self, subject: str, request: object) -> None:
        """Call JetStream's own service and raise what it answers with."""
        body = json.dumps(request).encode()
        self._socket.sendall(f"PUB $JS.API.{subject} {self._inbox}.api {len(body)}\r\n".encode() + body + b"\r\n")
        others: list[Message] = []
        answer = b""
        while not answer:
            for message in self._read():
                if message[0].endswith(".api"):
                    answer = message[2]
                else:
                    others.append(message)
        self._early = others
        if "error" in json.loads(answer):
            raise RuntimeError(f"NATS refused {subject}: {answer.decode()}")

    def wait(self, seconds: float) -> bool:
        """Return whether something has come; wait so long for it."""
        return bool(self._early or select.select([self._socket], [], [], seconds)[0])

    def rest(self) -> None:
        """Do nothing: what is acknowledged is not answered."""

    def declare(self) -> None:
        """Make the stream, in which a message is kept until it is consumed."""
        stream = {"name": self._queue, "subjects": [self._queue], "retention": "workqueue", "storage": "file"}
        self._ask(f"STREAM.CREATE.{self._queue}", {**stream, "num_replicas": 1})

    def delete(self) -> None:
        """Remove the stream with all that is in it."""
        self._ask(f"STREAM.DELETE.{self._queue}", {})

    def send(self, bodies: Sequence[bytes]) -> None:
        """Publish, all in one write."""
        parts: list[bytes] = []
        for body in bodies:
            self._sent += 1
            head = f"PUB {self._queue} {self._inbox}.{self._sent} {len(body)}\r\n"
            parts += (head.encode(), body, b"\r\n")
        self._socket.sendall(b"".join(parts))

    def confirmations(self) -> list[int]:
        """Return the numbers (from 1) of messages that are now confirmed; wait for something to come."""
        confirmed: list[int] = []
        for subject, _reply, answer in self._read():
            if b'"error"' in answer:
                raise RuntimeError(f"NATS did not confirm: {answer.decode()}")
            confirmed.append(int(subject.rpartition(".")[2]))
        return confirmed

    def consume(self, window: int) -> None:
        """Ask for deliveries, at most `window` of them unacknowledged."""
        self._socket.sendall(f"SUB {self._inbox}.work.in 2\r\n".encode())
        config = {
            "durable_name": "bench", "deliver_subject": f"{self._inbox}.work.in", "ack_policy": "explicit",
            "max_ack_pending": window,
        }  # fmt: skip
        request = {"stream_name": self._queue, "config": config}
        self._ask(f"CONSUMER.DURABLE.CREATE.{self._queue}.bench", request)

    def deliveries(self) -> list[bytes]:
        """Return the bodies of what was delivered, all acknowledged in one write; wait for something to come."""
        bodies: list[bytes] = []
        acks: list[bytes] = []
        for _subject, reply, body in self._read():
            bodies.append(body)
            acks.append(b"PUB %b 4\r\n+ACK\r\n" % reply.encode())
        if acks:
            self._socket.sendall(b"".join(acks))
        return bodies

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()
