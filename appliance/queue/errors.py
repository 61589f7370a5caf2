"""What the queue refuses, and what it cannot know."""

from appliance.errors import ApplianceError, InvalidInput, NotFound, Refused, Relayed, Unavailable


class QueueBusy(Unavailable):
    """The broker is at a limit (depth, bytes, disk); nothing was stored. Try again after `retry_after_s` seconds."""

    code = "queue-busy"
    hint = "Try again after the time given; `alpha-ren queue` shows which address is full."

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PublishUnknown(Unavailable):
    """No acknowledgement came before the deadline, so it may be stored or not.

    Publish again with the same id: a repeat is no second message.
    """

    code = "publish-unknown"
    hint = "Publish again with the same id: the broker recognises a repeat."

    def __init__(self, message: str, ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.ids = ids


class NotPermitted(Refused):
    """The key's rights do not cover this address."""

    code = "not-permitted"
    hint = "The component's declaration must list the address among what it may use."


class LeaseLost(ApplianceError):
    """The delivery's lease had passed; the message went, or goes, to another consumer."""

    code = "lease-lost"
    hint = "Drop the work in hand; whoever holds the message now finishes it."
    status = 409


class SettleUnknown(Unavailable):
    """No answer to done, retry, reject or move before the deadline.

    If it did not arrive, the message is delivered again.
    """

    code = "settle-unknown"


class BadAddress(InvalidInput):
    """Not an address (`lan/cluster/name` or a short name), or not a pattern."""

    code = "bad-address"
    hint = "Names are letters, digits, `_` and `-` in parts joined by dots; `lan/cluster/` in front is optional."


class BodyTooLarge(InvalidInput):
    """The body is larger than a message, its address or the whole queue may ever be: no wait makes room for it."""

    code = "body-too-large"
    hint = "Send less in one message, or raise `max_bytes` of the address under `[[queue.limits]]`."
    status = 413


class NoRoute(NotFound):
    """The address is in a cluster to which this broker has no route."""

    code = "no-route"
    hint = "Configure a route to that cluster, or use an address of this one."


class RoutingLoop(Refused):
    """The message has been here before, or has been on its way through too many clusters."""

    code = "routing-loop"
    hint = "The routes of the clusters on its way send it in a circle; correct them and requeue it."


class RemoteError(Relayed):
    """The server's error, with its code, sentence and hint; also the broker's own (see `codes`)."""


NOT_SERVED = "call-not-served"
CALL_DEADLINE = "call-deadline"
SERVER_LOST = "call-server-lost"
"""Codes with which the broker itself answers a call: nobody serves it, no answer in time, its server went away."""


class WireError(InvalidInput):
    """Frames that are not this protocol; the session ends."""

    code = "wire-malformed"
    hint = "The peer speaks another version or another protocol; see appliance/queue/PROTOCOL.md."


NO_ROOM = "The disk has no room for the queue."


class StoreFull(Unavailable):
    """The disk has no room; the transaction was undone."""

    code = "store-full"
    hint = "Free space on the state partition or drain the queue."


class StoreFailed(ApplianceError):
    """The store cannot be trusted to hold what it was given; the broker ends and recovers by restarting."""

    code = "store-failed"
    hint = "The journal has the I/O error; check the disk if it comes back after the restart."


class StoreDamaged(StoreFailed):
    """The store's file is not what was written to it."""

    code = "store-damaged"
    hint = "Put back a backup, or move queue.sqlite* aside: the broker then starts with an empty queue."


class LogDamaged(StoreDamaged):
    """The log of the last turns is not what was written to it, or does not fit what the tables have."""

    hint = (
        "Put back a backup. Without one, move queue.sqlite* aside and restore queue.sqlite from there, without the "
        "queue.sqlite-redo* beside it: it lacks the last turns only."
    )


class CopyFailed(ApplianceError):
    """The store could not be copied, or not be looked at beside its use; it is as it was."""

    code = "copy-failed"
    hint = "Is there room for another copy on the state partition? The queue itself goes on."
