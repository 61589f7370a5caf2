"""Who may do what on the queue."""

import msgspec


class Rights(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Short-name patterns (`*` matches anything) for each thing a key may do on the queue.

    To relay is to publish what others first published; these patterns are of origins, in full (`lan/cluster/name`).
    To administer is to look into messages, send dead ones round again and drop them; `*` also covers the store itself.
    """

    publish: tuple[str, ...] = ()
    consume: tuple[str, ...] = ()
    emit: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    administer: tuple[str, ...] = ()
    relay: tuple[str, ...] = ()


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key the broker knows: the name it speaks as, its CURVE public key (Z85) and its rights.

    What it publishes has the origin `origin`, or its name where that is empty. Keys with one origin stand for each
    other: an id that one of them has published is a duplicate from any of them. A key from `outside` the
    machine comes in by the gate and nowhere else, all others anywhere but there.
    """

    name: str
    public_key: str
    rights: Rights
    origin: str = ""
    outside: bool = False


class AccessList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every key the broker lets in; a key that is not listed is refused.

    `routes` are the clusters (`lan/cluster`) to which a bridge takes messages.
    """

    version: int = 1
    entries: tuple[Access, ...] = ()
    routes: tuple[str, ...] = ()
