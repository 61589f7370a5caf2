"""What the supervisor says about its machine."""

from pathlib import Path

from appliance.config import Config
from appliance.contracts.machine import NicStatus, UnitStatus
from appliance.contracts.order import Health
from appliance.supervisor import status
from appliance.supervisor.inforce import InForce
from appliance.topology import UnitFact
from tests.unit.supervisor.fakes import small

UP = UnitStatus(name="a.service", component="a", instance="a", state="active")
DOWN = UnitStatus(name="b.service", component="b", instance="b", state="failed")
QEMU = Path(__file__).resolve().parents[3] / "hwprofiles" / "qemu.toml"
WELL = status.Heard(health=Health(at=5.0, ok=True, journey_s=0.1), at=1000.0)


def test_ready_means_that_the_journey_works_and_every_unit_is_active() -> None:
    assert status.is_ready((UP,), WELL, now=1001.0)
    assert not status.is_ready((UP, DOWN), WELL, now=1001.0)
    assert not status.is_ready((UP,), None, now=1001.0)
    assert not status.is_ready((UP,), status.Heard(health=Health(at=5.0, ok=False), at=1000.0), now=1001.0)
    assert not status.is_ready((), WELL, now=1001.0)


def test_a_word_about_health_does_not_hold_for_ever() -> None:
    assert not status.is_ready((UP,), WELL, now=1000.0 + status.HEALTH_HOLDS_S)


def test_a_declared_unit_that_was_not_found_is_inactive() -> None:
    facts = [UnitFact(name="alpha-ren-srv-1.service", text="", state="active", restarts=2)]
    rows = {row.instance: row for row in status.units(small().machine, facts)}
    assert (rows["srv-1"].state, rows["srv-1"].restarts) == ("active", 2)
    assert rows["srv-2"].state == "inactive"


def test_the_image_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID=alpha-ren\nIMAGE_VERSION="1.2.3"\n')
    found = status.identity(status.profile(QEMU), tmp_path / "os-release")
    assert (found.version, found.profile) == ("1.2.3", "qemu")
    assert status.identity(None, tmp_path / "none").version == "unknown"


def test_a_profile_that_is_not_one_is_none(tmp_path: Path) -> None:
    assert status.profile(tmp_path / "none.toml") is None
    (tmp_path / "bad.toml").write_text("nonsense")
    assert status.profile(tmp_path / "bad.toml") is None


OPERATORS = NicStatus(name="enp3s0", role="management", mac="52:54:00:00:00:03", addresses=("198.51.100.2/24",))


def url(uplink: tuple[str, ...], outside_url: str = "", nics: tuple[NicStatus, ...] = ()) -> str:
    """The console's address for these addresses of the uplink."""
    return status.machine_status(
        who=status.Identity(version="1", profile="qemu"),
        in_force=InForce(config=Config(), source="default"),
        rows=(),
        health=None,
        uplink=uplink,
        outside_url=outside_url,
        queue_key="k" * 40,
        boot=(),
        step="",
        problem=None,
        notes=(),
        nics=nics,
    ).console_url


def test_the_console_is_where_the_outside_was_told_else_at_the_first_ipv4_address() -> None:
    assert url(("2001:db8::1/64", "192.0.2.7/24")) == "https://192.0.2.7/"
    assert url(("2001:db8::1/64",)) == "https://[2001:db8::1]/"
    assert url(()) == ""
    assert url(("192.0.2.7/24",), "https://localhost:8443/") == "https://localhost:8443/"


def test_the_console_is_on_the_operators_lan_where_the_uplink_has_no_address() -> None:
    assert url((), nics=(OPERATORS,)) == "https://198.51.100.2/"
    assert url(("192.0.2.7/24",), nics=(OPERATORS,)) == "https://192.0.2.7/"
