"""Which addresses a user's flow may not deliver to."""

import pytest

from appliance.arsrv.spec import Settings, declare
from appliance.arsrv.targets import Guard
from appliance.config import Config


@pytest.fixture
def guard() -> Guard:
    settings = declare(Config()).instances[0].settings
    assert isinstance(settings, Settings)
    return Guard((*settings.inner, *settings.forbidden))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "::1", "::", "0.0.0.0", "10.156.16.2", "10.156.0.1", "fd9c:156::2", "fd9c:156:0:1::3",
        "169.254.169.254", "fe80::1", "fe80::1%uplink", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:10.156.16.2",
        "::ffff:127.0.0.1", "64:ff9b::a9c:1002", "2002:a9c:1002::1",
    ],
)  # fmt: skip
def test_the_inside_of_the_box_is_out_of_bounds(guard: Guard, address: str) -> None:
    assert guard.forbids(address)


@pytest.mark.parametrize(
    "address", ["192.0.2.7", "192.168.1.10", "10.1.2.3", "2001:db8::1", "fd00::1", "::ffff:192.0.2.7"]
)
def test_hosts_outside_the_box_are_targets_private_ones_too(guard: Guard, address: str) -> None:
    assert not guard.forbids(address)
