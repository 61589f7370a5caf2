"""The frames of the protocol, in the shape of the Majordomo protocol 0.2 (ZeroMQ RFC 18); PROTOCOL.md has the whole of
it.

A message is: version frame, command frame (one byte), header frame (a MessagePack array), then the bodies: one frame
for the only one, or one for all of them, since each frame has its price (a call, a lock, an encryption).
Encoding and decoding are pure; what does not fit raises WireError.
"""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from appliance.errors import NOT_DECODED, ApplianceError
from appliance.queue.errors import WireError

VERSION = b"ARQ1"
MAX_ITEMS = 1024
MAX_CREDIT = 4096

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Id = Annotated[str, Meta(min_length=1, max_length=200)]
Name = Annotated[str, Meta(min_length=1, max_length=270)]
Text = Annotated[str, Meta(max_length=2000)]
Span = Annotated[float, Meta(ge=0, le=3.2e8)]
"""Seconds from now, ten years at most."""
Instant = Annotated[float, Meta(ge=0, le=1e11)]
"""Unix time in seconds."""
Way = Annotated[tuple[Annotated[str, Meta(max_length=65)], ...], Meta(max_length=64)]
"""The clusters (`lan/cluster`) that a message has left behind it, the first one first."""
Token = tuple[Number, Number]
"""A lease: the message's number in this store and its fencing token."""

STORED, DUPLICATE, BUSY, REFUSED, STALE = range(5)
"""Statuses in Results. For everything but a publish, STORED reads as *ok*; STALE is a settle whose lease has passed."""

SESSION_UNKNOWN, STOPPING = "session-unknown", "broker-stopping"
"""Codes of the broker's Bye."""

DONE, RETRY, REJECT, RELEASE = range(4)
"""Outcomes in Settle; RELEASE gives a delivery back untouched, and the attempt is not counted."""


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all headers and of their parts."""

    @property
    def bodies(self) -> int:
        """How many body frames belong to it."""
        return 0


class _OneBody(Header, frozen=True, array_like=True, forbid_unknown_fields=True):
    @property
    def bodies(self) -> int:
        return 1


class _BodyEach(Header, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Has a body for each of its items, in order, all in one frame: a MessagePack array of bin."""


class Fault(Header, frozen=True):
    """An error as it travels: see appliance.errors.Problem."""

    code: Annotated[str, Meta(max_length=100)]
    message: Text
    hint: Text = ""
    status: Annotated[int, Meta(ge=400, le=599)] = 500


def fault_of(error: ApplianceError) -> Fault:
    """Return the error as it travels."""
    problem = error.problem
    return Fault(problem.code, problem.message[:2000], problem.hint[:2000], problem.status)


class Hello(Header, frozen=True):
    """Opens a session; `software` is for the journal."""

    software: Text


class Item(Header, frozen=True, gc=False):
    """One work item to be stored; see QueueClient.publish. A bridge says who published it first, and its way so far."""

    address: Name
    id: Id
    delay_s: Span = 0.0
    not_before: Instant | None = None
    expires_s: Span | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    origin: Annotated[str, Meta(max_length=270)] = ""
    way: Way = ()


class Publish(_BodyEach, frozen=True):
    """Many items at once; Results has a status for each."""

    request: Number
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=MAX_ITEMS)]

    @property
    def bodies(self) -> int:
        """One for each item, in order."""
        return len(self.items)


class Consume(Header, frozen=True):
    """Asks for work; `held` are leases from an earlier session that the consumer still works on."""

    request: Number
    subscription: Number
    pattern: Name
    credit: Annotated[int, Meta(ge=1, le=MAX_CREDIT)]
    held: Annotated[tuple[Token, ...], Meta(max_length=MAX_CREDIT)] = ()


class Subscribe(Header, frozen=True):
    """Asks for events, the kept values first."""

    request: Number
    subscription: Number
    pattern: Name


class Cancel(Header, frozen=True):
    """Ends a subscription of either kind; leases stay."""

    subscription: Number


class Outcome(Header, frozen=True, gc=False):
    """How a delivery ended. Without `delay_s` a retry waits as long as the broker thinks fit, a release not at all."""

    token: Token
    outcome: Annotated[int, Meta(ge=0, le=3)]
    delay_s: Span | None = None
    reason: Text = ""


class Settle(Header, frozen=True):
    """Ends deliveries; Results has a status for each."""

    request: Number
    items: Annotated[tuple[Outcome, ...], Meta(min_length=1, max_length=MAX_ITEMS)]


class Move(_OneBody, frozen=True):
    """Stores `item` and ends the delivery, both or neither."""

    request: Number
    token: Token
    item: Item


class Emit(_OneBody, frozen=True):
    """An event. With `restore` it only fills a gap: it is dropped where a value is kept that is not older than `at`."""

    request: Number
    topic: Name
    restore: bool = False
    at: Instant = 0.0


class Call(_OneBody, frozen=True):
    """A call, to be answered within `deadline_s`."""

    request: Number
    name: Name
    deadline_s: Span


class Serve(Header, frozen=True):
    """Offers to answer calls to `name`."""

    request: Number
    name: Name


class Answer(_OneBody, frozen=True):
    """A server's answer to Asked."""

    call: Number
    fault: Fault | None = None


class Heartbeat(Header, frozen=True):
    """Says that the application lives, and which leases it still works on; these are extended."""

    held: Annotated[tuple[Token, ...], Meta(max_length=65536)] = ()


class Bye(Header, frozen=True):
    """Ends the session. From the broker with `session-unknown`: say Hello again."""

    code: Annotated[str, Meta(max_length=100)] = ""
    message: Text = ""


class Welcome(Header, frozen=True):
    """The session is open: the broker's name, the name of our key, this start of the broker, and its rules.

    `next_key` is the public key that the broker takes into use at one of its next starts, empty where there is none.
    """

    broker: Text
    name: Text
    epoch: Text
    heartbeat_s: Span
    lease_s: Span
    max_body: int
    next_key: Annotated[str, Meta(max_length=40)] = ""


class Trouble(Header, frozen=True):
    """Why the item at `index` was not taken."""

    index: int
    fault: Fault
    retry_after_s: Span = 0.0


class Results(Header, frozen=True):
    """The answer to a request: a status per item, and a Trouble for each that is BUSY, REFUSED or STALE."""

    request: Number
    statuses: tuple[int, ...]
    troubles: tuple[Trouble, ...] = ()


class Onward(Header, frozen=True, gc=False):
    """What a bridge passes on with a message for another cluster; seconds count from the delivery."""

    way: Way = ()
    delay_s: Span = 0.0
    expires_s: Span | None = None
    max_attempts: int | None = None
    key: str | None = None


class Handed(Header, frozen=True, gc=False):
    """One delivery; `published_at` is Unix time. A message for another cluster has `onward`."""

    token: Token
    id: str
    origin: str
    address: str
    attempt: int
    published_at: float
    onward: Onward | None = None


class Deliver(_BodyEach, frozen=True):
    """Work for a subscription."""

    subscription: Number
    items: tuple[Handed, ...]

    @property
    def bodies(self) -> int:
        """One for each item, in order."""
        return len(self.items)


class Happened(_OneBody, frozen=True):
    """An event for a subscription."""

    subscription: Number
    topic: str
    origin: str
    at: float
    retained: bool


class Asked(_OneBody, frozen=True):
    """A call for a server."""

    call: Number
    name: str
    caller: str
    deadline_s: Span


class Reply(_OneBody, frozen=True):
    """The answer for the caller."""

    request: Number
    fault: Fault | None = None


TO_BROKER: dict[bytes, type[Header]] = {
    b"\x01": Hello,
    b"\x02": Publish,
    b"\x03": Consume,
    b"\x04": Subscribe,
    b"\x05": Cancel,
    b"\x06": Settle,
    b"\x07": Move,
    b"\x08": Emit,
    b"\x09": Call,
    b"\x0a": Serve,
    b"\x0b": Answer,
    b"\x0c": Heartbeat,
    b"\x0d": Bye,
}
TO_CLIENT: dict[bytes, type[Header]] = {
    b"\x81": Welcome,
    b"\x82": Results,
    b"\x83": Deliver,
    b"\x84": Happened,
    b"\x85": Asked,
    b"\x86": Reply,
    b"\x87": Heartbeat,
    b"\x88": Bye,
}

_BODIES = msgspec.msgpack.Decoder(list[bytes])
_ENCODE = msgspec.msgpack.Encoder().encode
_TO_BROKER = {command: msgspec.msgpack.Decoder(kind) for command, kind in TO_BROKER.items()}
_TO_CLIENT = {command: msgspec.msgpack.Decoder(kind) for command, kind in TO_CLIENT.items()}
_COMMAND_TO_BROKER = {kind: command for command, kind in TO_BROKER.items()}
_COMMAND_TO_CLIENT = {kind: command for command, kind in TO_CLIENT.items()}

H = TypeVar("H", bound=Header)
Frames = list[bytes]


def to_broker(header: Header, bodies: Sequence[bytes] = ()) -> Frames:
    """Return the frames of a client's message."""
    return _encode(_COMMAND_TO_BROKER[type(header)], header, bodies)


def to_client(header: Header, bodies: Sequence[bytes] = ()) -> Frames:
    """Return the frames of a broker's message."""
    return _encode(_COMMAND_TO_CLIENT[type(header)], header, bodies)


def from_client(frames: Frames) -> tuple[Header, Frames]:
    """Return header and bodies of what a client sent, or raise WireError."""
    return _decode(frames, _TO_BROKER)


def from_broker(frames: Frames) -> tuple[Header, Frames]:
    """Return header and bodies of what the broker sent, or raise WireError."""
    return _decode(frames, _TO_CLIENT)


def _encode(command: bytes, header: Header, bodies: Sequence[bytes]) -> Frames:
    if isinstance(header, _BodyEach):
        return [VERSION, command, _ENCODE(header), _ENCODE(bodies)]
    return [VERSION, command, _ENCODE(header), *bodies]


def _decode(frames: Frames, decoders: dict[bytes, "msgspec.msgpack.Decoder[Header]"]) -> tuple[Header, Frames]:
    if len(frames) < 3 or frames[0] != VERSION:
        raise WireError("The frames are not version ARQ1 of the queue's protocol.")
    decoder = decoders.get(frames[1])
    if decoder is None:
        raise WireError(f"There is no command {frames[1][:4].hex()}.")
    try:
        header = decoder.decode(frames[2])
        bodies = frames[3:]
        if isinstance(header, _BodyEach):
            bodies = _BODIES.decode(bodies[0]) if len(bodies) == 1 else []
    except (*NOT_DECODED, RecursionError) as error:
        raise WireError(f"The frames do not fit their command: {error}.") from error
    if len(bodies) != header.bodies:
        raise WireError(f"The command needs {header.bodies} bodies and has {len(bodies)}.")
    return header, bodies
