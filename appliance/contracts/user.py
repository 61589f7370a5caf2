"""Users of the consoles: first-boot set-up, login, session."""

import msgspec


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `arclst.setup`: sets the administrator's password; `code` is what the local console shows."""

    code: str
    password: str
    source: str = ""

    def __repr__(self) -> str:
        return "Setup(…)"


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `arclst.login`: opens a session; `source` is the client's address, for rate limits and the journal."""

    user: str
    password: str
    source: str = ""

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, …)"


class SessionToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calls `arclst.session` and `arclst.logout`, and the reply to `arclst.login`."""

    token: str

    def __repr__(self) -> str:
        return "SessionToken(…)"


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to `arclst.session`: who this is, and until when (Unix time)."""

    user: str
    expires_at: float


class SetupState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to `arclst.setup.state`: whether an administrator's password was ever set."""

    done: bool


class PairingAttempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `supervisor.pair`: is this the code on the local console? A wrong one raises, a right one is used up."""

    code: str
    source: str = ""

    def __repr__(self) -> str:
        return "PairingAttempt(…)"


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An empty reply: it was done."""
