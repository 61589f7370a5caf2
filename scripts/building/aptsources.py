"""Package sources of the firmware's Debian release, made from those of this machine.

So a local mirror or a proxy is honoured, and the repository names no host.
"""

import dataclasses
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from scripts.building.failure import Failure

RELEASE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


@dataclasses.dataclass(frozen=True)
class Source:
    """One place to get packages from; `signed_by` is a keyring's path or a key as sources.list(5) has it."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def configured(root: Path = Path("/")) -> list[Source]:
    """The binary package sources in a machine's apt configuration (sources.list(5), both formats)."""
    folder = root / "etc/apt/sources.list.d"
    found: list[Source] = []
    for file in [root / "etc/apt/sources.list", *sorted(folder.glob("*.list"))]:
        if file.is_file():
            found += one_line(file.read_text())
    for file in sorted(folder.glob("*.sources")):
        found += deb822(file.read_text())
    return found


def one_line(text: str) -> Iterator[Source]:
    """Sources in the one-line format."""
    for line in text.splitlines():
        if match := _ONE_LINE.match(line.partition("#")[0].strip()):
            options = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
            components = tuple(match["components"].split())
            yield Source((match["uri"],), (match["suite"],), components, options.get("signed-by", ""))


def deb822(text: str) -> Iterator[Source]:
    """Sources in the deb822 format; a disabled stanza is none."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')}\n{line}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        if enabled and "deb" in fields.get("types", "").split():
            yield Source(
                tuple(fields.get("uris", "").split()),
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", ""),
            )


def for_release(sources: Iterable[Source], codename: str, release: str = RELEASE) -> list[Source]:
    """This machine's Debian archives, with the suites of another release; other people's archives are left out."""
    suffixes = {codename: "", f"{codename}-updates": "-updates", f"{codename}-security": "-security"}
    chosen: list[Source] = []
    for source in sources:
        suites = tuple(f"{release}{suffixes[suite]}" for suite in source.suites if suite in suffixes)
        if suites and "main" in source.components:
            # The firmware uses main only.
            chosen.append(Source(source.uris, suites, ("main",), source.signed_by or KEYRING))
    if not any(release in source.suites for source in chosen):
        raise Failure(
            "no-package-source",
            f"The apt configuration of this machine has no Debian archive for {codename}.",
            "The build takes its mirror from /etc/apt/sources.list or sources.list.d: put one there.",
        )
    return chosen


def rendered(sources: Iterable[Source]) -> str:
    """The sources in deb822 format."""
    return "\n".join(
        f"Types: deb\nURIs: {' '.join(source.uris)}\nSuites: {' '.join(source.suites)}\n"
        f"Components: {' '.join(source.components)}\nSigned-By:{_signed_by(source)}\n"
        for source in sources
    )


def _signed_by(source: Source) -> str:
    return source.signed_by if source.signed_by.startswith("\n") else f" {source.signed_by}"


def codename() -> str:
    """The Debian release of this machine."""
    fields = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    if fields.get("ID", "") != "debian" or "VERSION_CODENAME" not in fields:
        raise Failure(
            "host-not-debian",
            f"This machine runs {fields.get('PRETTY_NAME', 'an unknown system')}; the build needs Debian 12 or 13.",
            "Use a Debian machine, virtual machine or container.",
        )
    return fields["VERSION_CODENAME"].strip('"')


def transport_options() -> str:
    """How this machine's apt reaches its servers (proxies and the like), as apt configuration."""
    dump = subprocess.run(
        ["apt-config", "dump", "--no-empty", "Acquire"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return "".join(f"{line}\n" for line in dump.splitlines() if re.match(r"Acquire::(https?|ftp)::", line))


def write(tree: Path) -> None:
    """Puts sources and transport options into `tree` as /etc/apt; keys that are not a Debian package's go along."""
    sources = for_release(configured(), codename())
    apt = tree / "etc/apt"
    for folder in ("sources.list.d", "apt.conf.d", "preferences.d"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list.d/mkosi.sources").write_text(rendered(sources))
    (apt / "apt.conf.d/50-host.conf").write_text(transport_options())
    for source in sources:
        if source.signed_by.startswith("/etc/"):
            target = tree / source.signed_by.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(source.signed_by).read_bytes())
