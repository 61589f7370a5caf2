"""What D-Bus says about units. The units themselves are tested in the lab: they need a systemd to be PID 1."""

import pytest

from appliance.host.units import unit_of


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
