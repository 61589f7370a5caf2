"""Revisions: every change of the cluster's state, numbered."""

import msgspec


class Revision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A numbered change: when (Unix time), by whom, what changed in one sentence."""

    number: int
    at: float
    who: str
    what: str
