"""What ARMAIL declares: Postfix as a null client, and the process that turns notices into mail.

Without a smarthost and recipients there is no Postfix and nobody takes notices: they wait in the queue, on disk, and
go out once mail is configured.
"""

import ipaddress
from collections.abc import Iterable
from importlib.resources import files
from string import Template

import msgspec

from appliance.component import (
    PYTHON,
    RUN,
    ComponentSpec,
    Egress,
    Instance,
    Peer,
    Placed,
    RenderedFile,
    Resources,
    Site,
    UnitSpec,
)
from appliance.config import Config, Mail
from appliance.contracts.access import Rights

NAME = "armail"
SLOT = 8
HERE = f"{RUN}/{NAME}"
WORK = f"{HERE}/work"
STATE_DIRECTORY = f"/var/lib/alpha-ren-{NAME}"
QUEUE = f"{STATE_DIRECTORY}/queue"
SMTP_PORT = 25
NOT_CONFIGURED = "Mail is not configured: notices wait until `mail.smarthost` and `mail.recipients` are set."

_PRIVATE = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace",
)
_OWNED = ("/usr/bin/install", "-d", "-o", "postfix")

POSTFIX = UnitSpec(
    name="postfix",
    exec=("/usr/lib/postfix/sbin/master", "-c", HERE, "-s"),
    # What post-install(1) would do, without what Debian's adds for chroots.
    before=(
        ("/usr/bin/install", "-d", "-m", "755", QUEUE, f"{QUEUE}/pid"),
        (*_OWNED, "-m", "700", f"{WORK}/data", *(f"{QUEUE}/{name}" for name in _PRIVATE)),
        (*_OWNED, "-g", "postdrop", "-m", "710", f"{QUEUE}/public"),
        (*_OWNED, "-g", "postdrop", "-m", "730", f"{QUEUE}/maildrop"),
    ),
    reload=("/bin/sh", "-c", "kill -HUP $MAINPID"),
    kind="exec",
    user="root",
    capabilities=(
        "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
    ),
    environment=(f"MAIL_CONFIG={HERE}",),
    state_directory=True,
    writable=(WORK,),
)

COURIER = UnitSpec(exec=(PYTHON, "-m", "appliance.armail.service"), watchdog_s=30)


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who mail is from, whom it goes to, and the host name that its message ids end in."""

    sender: str
    recipients: tuple[str, ...]
    host: str


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The envelope of every notice, or None while mail is not configured; Postfix listens on `port` of loopback."""

    envelope: Envelope | None
    port: int = SMTP_PORT


def declare(config: Config) -> ComponentSpec:
    """Return the mail component of this machine."""
    configured = _is_configured(config.mail)
    mail = Instance(
        name=NAME,
        slot=SLOT,
        legs=("dmz",),
        peers=(Peer(component="queue", port="queue", reason="takes notices"),),
        egress=(_to_smarthost(config.mail.smarthost),) if configured else (),
        rights=Rights(consume=("notice.mail",)),
        units=(COURIER, POSTFIX) if configured else (COURIER,),
        resources=Resources(memory_mb=192, tasks=128, open_files=4096),
        settings=Settings(envelope=_envelope(config) if configured else None),
        notes=() if configured else (NOT_CONFIGURED,),
    )
    return ComponentSpec(name=NAME, instances=(mail,), render=render)


def render(site: Site, _placed: Placed) -> Iterable[RenderedFile]:
    """Yield Postfix's two files, each checked by postconf(1), which warns about what it does not know."""
    if not _is_configured(site.config.mail):
        return
    host, port = _smarthost(site.config.mail.smarthost)
    content = Template(_text("main.cf.tmpl")).substitute(
        state=STATE_DIRECTORY, work=WORK, hostname=_hostname(site.config), relayhost=f"[{host}]:{port}"
    )
    yield RenderedFile(name="main.cf", content=content, check=_check("main.cf"), reloads=(POSTFIX.name,))
    yield RenderedFile(name="master.cf", content=_text("master.cf"), check=_check("master.cf"), reloads=(POSTFIX.name,))


def _is_configured(mail: Mail) -> bool:
    return bool(mail.smarthost and mail.recipients)


def _envelope(config: Config) -> Envelope:
    host = _hostname(config)
    return Envelope(sender=config.mail.sender or f"alpha-ren@{host}", recipients=config.mail.recipients, host=host)


def _hostname(config: Config) -> str:
    return f"{config.machine.name}.{config.machine.cluster}.{config.machine.lan}.alpha-ren.internal"


def _smarthost(smarthost: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `[address]:port`; IPv6 gets Postfix's `ipv6:` in front."""
    host, colon, port = smarthost.rpartition(":")
    if not colon or "]" in port:
        host, port = smarthost, str(SMTP_PORT)
    host = host.strip("[]")
    return (f"ipv6:{host}" if ":" in host else host), int(port)


def _to_smarthost(smarthost: str) -> Egress:
    host, port = _smarthost(smarthost)
    reason = "hands notices to the smarthost"
    try:
        address = ipaddress.ip_address(host.removeprefix("ipv6:"))
    except ValueError:
        return Egress(port=port, reason=reason)
    return Egress(port=port, reason=reason, to=f"{address}/{address.max_prefixlen}")


def _check(name: str) -> tuple[str, ...]:
    script = (
        "d=$(mktemp -d) && trap 'rm -r $d' EXIT && touch $d/main.cf $d/master.cf && cat \"$0\" > $d/" + name
        + " && { postconf -c $d; postconf -c $d -M; } 2>&1 >/dev/null | { ! grep . ; }"
    )
    return ("/bin/sh", "-c", script, "{path}")


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
