"""What D-Bus says about units. The units themselves are tested in the lab: they need a systemd to be PID 1."""

import asyncio
from pathlib import Path

import pytest

from appliance.host.netns import Namespaces
from appliance.host.units import Units, unit_of
from appliance.supervisor.plan import loaded
from appliance.topology import Unit
from tests.system_bus import serve

MARK = "# ours\n"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/org/freedesktop/systemd1/unit/alpha_2dren_2darsrv_2d1_2eservice", "alpha-ren-arsrv-1.service"),
        ("/org/freedesktop/systemd1/unit/run_2dnetns_2darsrv_5cx2d1_2emount", "run-netns-arsrv\\x2d1.mount"),
        ("/org/freedesktop/systemd1/unit/init_2escope", "init.scope"),
    ],
)
def test_a_units_name_is_read_from_its_path(path: str, name: str) -> None:
    assert unit_of(path) == name


def test_as_many_units_as_a_machine_may_have_are_started_and_asked_about_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    all_of_them = [
        Unit(name=f"alpha-ren-{number}.service", text=MARK, component="c", instance="i") for number in range(450)
    ]

    async def states() -> set[str]:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            listening = asyncio.Event()
            bus = group.create_task(serve(tmp_path / "bus", listening.set))
            await listening.wait()
            namespaces = Namespaces(tmp_path)
            units = Units(namespaces, MARK, lambda _cause: None, tmp_path / "units", tmp_path / "loaded")
            async with units:
                units.write(all_of_them)
                await asyncio.gather(*(units.start(unit, loaded(unit, {})) for unit in all_of_them))
                found = await units.observe()
            bus.cancel()
            namespaces.close()
        assert [each.name for each in found] == sorted(unit.name for unit in all_of_them)
        return {each.state for each in found}

    assert asyncio.run(states()) == {"active"}
