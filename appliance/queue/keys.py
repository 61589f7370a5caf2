"""CURVE key pairs, as ZeroMQ's RFC 26 (CurveZMQ) uses them, in Z85 (RFC 32)."""

import msgspec
import zmq


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CURVE key pair; both halves are 40 characters of Z85."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r}, secret=…)"


def generate_keys() -> Keys:
    """Return a fresh key pair."""
    public, secret = zmq.curve_keypair()
    return Keys(public=public.decode(), secret=secret.decode())


def public_of(secret: str) -> str:
    """Return the public half of a Z85 secret key."""
    return zmq.curve_public(secret.encode()).decode()
