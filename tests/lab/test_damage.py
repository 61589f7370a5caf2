"""Whatever a box is configured to be and whatever happened to it: it becomes that again by itself, and then there is
nothing to do.
"""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from appliance import config
from appliance.topology import HOST
from tests.lab.box import Box, started, with_guests
from tests.lab.damage import Target, amiss, happen, shown
from tests.lab.supervised import SUPERVISOR, apply, plan, settled
from tests.lab.systems import wait_until
from tests.unit.host.damage import Damage

EXAMPLES = {"namespace": 6, "vm": 1}
OTHERS = 3
MENDED_S = 300.0
"""A guest starts anew on a machine that emulates others and does other things."""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready and can have guests; its servers begin in namespaces."""
    in_namespaces = config.Config(arsrv=config.Arsrv(isolation="namespace"))
    with started(in_namespaces, set_up=False, plan=with_guests()) as box:
        yield box


def prove(box: Box, data: st.DataObject) -> None:
    """Damage the box as it is now in ways that are drawn, one of them a death, and see it become what it was."""
    wait_until("the box is what is wanted", lambda: settled(box), MENDED_S)
    target = Target(box)
    before = shown(box, target)
    kinds = [
        data.draw(st.sampled_from(target.deaths())),
        *data.draw(st.lists(st.sampled_from(target.kinds()), max_size=OTHERS)),
    ]
    happened = [data.draw(target.damages(*each)) for each in data.draw(st.permutations(kinds))]
    for damage in happened:
        happen(box, damage)
    try:
        wait_until("the box is what is wanted again", lambda: settled(box), MENDED_S)
    except BaseException:
        note(f"left to do: {plan(box)}")
        raise
    box.wait_ready()
    assert plan(box) == []
    assert amiss(box, target) == []
    assert shown(box, target) == before


SEEN = {
    "link": Damage("arsrv-1", "ip link del cluster"),
    "rules": Damage("dns", "nft flush ruleset"),
    "namespace": Damage(HOST, "umount -l /run/netns/arsrv-1; rm /run/netns/arsrv-1; ip netns add arsrv-1"),
    "unit": Damage(HOST, "systemctl stop alpha-ren-portal.service"),
    "text": Damage(HOST, "echo CPUWeight=1 >> /run/systemd/system/alpha-ren-portal.service"),
}


@pytest.mark.parametrize("what", SEEN)
def test_what_nobody_mends_is_told_from_what_was(box: Box, what: str) -> None:
    wait_until("the box is what is wanted", lambda: settled(box), MENDED_S)
    target = Target(box)
    before, supervisor = shown(box, target), box.machine.main_pid(SUPERVISOR)
    assert amiss(box, target) == []
    box.machine.kill(supervisor, signal.SIGSTOP)
    try:
        happen(box, SEEN[what])
        assert (amiss(box, target), shown(box, target)) != ([], before)
    finally:
        box.machine.kill(supervisor, signal.SIGCONT)


@pytest.mark.parametrize("isolation", list(EXAMPLES))
def test_a_box_becomes_what_it_was_whatever_it_is_and_whatever_happens_to_it(box: Box, isolation: str) -> None:
    @settings(
        max_examples=EXAMPLES[isolation],
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data(), servers=st.integers(1, 2))
    def mended(data: st.DataObject, servers: int) -> None:
        apply(box, f'[arsrv]\ncount = {servers}\nisolation = "{isolation}"\n')
        prove(box, data)

    mended()
