"""What a load is told to do, what it reports, and how both ends of a queue know which message is the last."""

from typing import Literal

import msgspec

from appliance.queue.connection import Connection

LAST = b"L"
"""How the last body of a run begins; the number of all follows."""


BATCH = 256
"""Messages that go out together at most."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do to whom: `port` of a peer, `connection` to the broker, or `database` of bare SQLite.

    `accompanied` is a producer whose messages are consumed meanwhile.
    """

    system: Literal["arq", "own-client", "rabbitmq", "nats", "sqlite"]
    queue: str
    port: int = 0
    connection: Connection | None = None
    database: str = ""
    size: int = 1024
    window: int = 1
    seconds: float = 1.5
    count: int = 0
    rate: float = 0.0
    accompanied: bool = False

    @property
    def batch(self) -> int:
        """How many of our own messages go out together; as many of these are on their way as the window has room for.

        A producer alone makes one half of its window while the other is on its way. With a consumer beside it there is
        always somebody who has work, and the fewer turns the better.
        """
        return min(BATCH, self.window if self.accompanied else max(1, self.window // 2))


class Report(msgspec.Struct, kw_only=True):
    """How many messages, from when to when, the processor's seconds that it took here, and the latencies (seconds)."""

    count: int
    began: float
    ended: float
    cpu_s: float = 0.0
    latencies: list[float] = []


def last(count: int, size: int) -> bytes:
    """Return the body that says how many there were."""
    return (LAST + str(count).encode()).ljust(size)


def total_in(body: bytes) -> int:
    """Return how many there were, 0 when this is not the last."""
    return int(body[1:]) if body.startswith(LAST) else 0


def ready() -> None:
    """Tell who started us that the producers may begin."""
    print("ready", flush=True)
