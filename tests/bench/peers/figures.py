"""What is taken in the bench layer, in the form in which it comes out of it."""

from typing import Literal

import msgspec

Kind = Literal["publish", "consume"]
KINDS: tuple[Kind, ...] = ("publish", "consume")
"""Publishing alone, and publishing with another process that consumes."""
SIZES = (100, 1024, 16384)
WINDOWS = (1, 64, 1024)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A load: bodies of `size` bytes, at most `window` of them unacknowledged."""

    kind: Kind
    size: int
    window: int


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Messages a second of one system under one load, and microseconds of processor time a message."""

    system: str
    case: Case
    rate: float
    client_us: float = 0.0
    server_us: float = 0.0
    syncs: float = 0.0

    @property
    def line(self) -> str:
        """It, for a person."""
        return f"{self.system} {self.rate:.0f}/s (client {self.client_us:.0f} µs, server {self.server_us:.0f} µs)"


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long a publish took."""

    system: str
    p50_ms: float
    p99_ms: float


class Million(msgspec.Struct, frozen=True, kw_only=True):
    """A million messages waiting: memory with them, how long a clean stop took, and from start to first delivery."""

    system: str
    fill_rate: float
    memory_mb: float
    stop_s: float
    first_s: float
    memory_again_mb: float


class Figures(msgspec.Struct, kw_only=True):
    """Everything; `missing` says of each system that could not be measured why."""

    titles: dict[str, str] = {}
    missing: dict[str, str] = {}
    rates: list[Rate] = []
    syncs: list[Rate] = []
    latencies: list[Latency] = []
    millions: list[Million] = []
    profiles: dict[str, str] = {}
    """Where our own time goes, by name: functions of the broker's thread and of the producer, by their own time."""
