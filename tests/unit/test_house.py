"""The rules of the house: who may import whom, how long a file may be, what a name may not be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

GROUND = {"errors", "durable", "notify"}
NOUNS = {"config", "hwprofile", "topology"}
SEAM = {"component", "contracts"}
COMPONENTS = {"arclst", "arsrv", "arhav", "arwadm", "ardpx", "armail", "arvpn", "dns", "portal"}
COMMAND = {"cli", "cli_guest", "cli_queue", "cli_store", "cli_text"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "durable": set(),
    "notify": {"errors"},
    **dict.fromkeys(NOUNS, GROUND),
    **dict.fromkeys(SEAM, GROUND | NOUNS | SEAM),
    "queue": GROUND | NOUNS | SEAM,
    "web": GROUND | NOUNS | SEAM | {"queue"},
    **{room: GROUND | NOUNS | SEAM | {"queue", "web"} for room in COMPONENTS},
    "host": GROUND | {"topology"},
    "supervisor": GROUND | NOUNS | SEAM | {"queue", "host"} | COMPONENTS,
    **dict.fromkeys(COMMAND, GROUND | NOUNS | SEAM | {"queue", "supervisor"} | COMMAND),
    "firstboot": GROUND | NOUNS | SEAM | {"queue", "supervisor"},
}
"""Rooms by name, and the rooms each may import from (its own is always allowed)."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
MOST_LINES = 500


def room_of(module: str) -> str | None:
    """Return the room a dotted module belongs to, or None for a module from outside this repository."""
    parts = module.split(".")
    if parts[0] == "firstboot":
        return "firstboot"
    return parts[1] if parts[0] == "appliance" and len(parts) > 1 else None


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import in a module's source, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "relative import"
                continue
            module = node.module or ""
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}" if module in ("appliance", "") else module


def broken_imports(root: Path) -> list[str]:
    """Return one line for each import below `root` that the rule forbids."""
    broken = []
    for path in sorted((*root.glob("appliance/**/*.py"), *root.glob("firstboot/**/*.py"))):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        here = room_of(module)
        if here is None:
            continue
        where = path.relative_to(root)
        if here not in MAY_IMPORT:
            broken.append(f"{where}: the room {here} is not in the plan of the house")
            continue
        for line, target in imports_of(path.read_text(encoding="utf-8")):
            room = room_of(target)
            if target == "relative import":
                broken.append(f"{where}:{line}: relative import")
            elif room is not None and room != here and room not in MAY_IMPORT[here]:
                broken.append(f"{where}:{line}: {here} imports {target}")
    return broken


def test_every_import_goes_towards_the_ground_floor() -> None:
    assert broken_imports(REPOSITORY) == []


def test_no_component_but_the_registry_is_named_by_the_supervisor() -> None:
    named = []
    for path in sorted(REPOSITORY.glob("appliance/supervisor/*.py")):
        for line, target in imports_of(path.read_text(encoding="utf-8")):
            if room_of(target) in COMPONENTS:
                named.append(f"{path.relative_to(REPOSITORY)}:{line}: imports {target}")
    assert named == []


@pytest.mark.parametrize(
    ("where", "source", "complaint"),
    [
        ("appliance/arsrv/service.py", "from appliance.arclst import spec", "arsrv imports appliance.arclst"),
        ("appliance/arsrv/service.py", "def f():\n    import appliance.host.nft", "arsrv imports appliance.host.nft"),
        ("appliance/queue/broker.py", "from appliance import supervisor", "queue imports appliance.supervisor"),
        ("appliance/errors.py", "import appliance.config", "errors imports appliance.config"),
        ("appliance/host/nft.py", "from appliance.contracts.flow import Flow", "host imports appliance.contracts.flow"),
        ("appliance/dns/spec.py", "from . import service", "relative import"),
        ("appliance/attic/old.py", "", "the room attic is not in the plan"),
    ],
)
def test_a_broken_import_is_found(tmp_path: Path, where: str, source: str, complaint: str) -> None:
    (tmp_path / where).parent.mkdir(parents=True)
    (tmp_path / where).write_text(source, encoding="utf-8")
    assert any(complaint in line for line in broken_imports(tmp_path))


def our_files() -> Iterator[Path]:
    for folder in ("appliance", "firstboot", "scripts", "tests", "image"):
        yield from sorted((REPOSITORY / folder).rglob("*.py"))


def test_no_file_is_longer_than_fits_in_a_head() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for path in our_files()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_no_file_is_named_for_what_it_has_not_decided_to_be() -> None:
    assert [str(path) for path in our_files() if FORBIDDEN_NAMES & set(path.with_suffix("").parts)] == []
