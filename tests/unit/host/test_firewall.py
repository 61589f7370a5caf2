"""Rulesets in the real kernel."""

import asyncio
import os
from pathlib import Path

import pytest

from appliance.host.firewall import BadRuleset, Firewall
from appliance.host.netns import Namespaces
from appliance.topology import Ruleset
from tests.unit.supervisor.fakes import small

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads nftables rules, which only root may")

GOOD = "table inet alpha-ren {\n  chain input {\n    type filter hook input priority filter; policy drop;\n  }\n}\n"


def test_a_ruleset_that_is_refused_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    namespaces = Namespaces(tmp_path)

    def work() -> None:
        namespaces.make("x")
        try:
            firewall = Firewall(namespaces)
            good = Ruleset(namespace="x", text=GOOD)
            firewall.apply(good)
            with pytest.raises(BadRuleset, match="refuses the ruleset"):
                firewall.apply(Ruleset(namespace="x", text=GOOD.replace("filter hook", "no-such-thing hook")))
            assert firewall.listed("x") == firewall.canonical(GOOD)
        finally:
            namespaces.remove("x")

    asyncio.run(namespaces.call(work))
    namespaces.close()


def test_two_ways_to_write_one_ruleset_are_the_same(tmp_path: Path) -> None:
    namespaces = Namespaces(tmp_path)
    firewall = Firewall(namespaces)

    def work() -> None:
        assert firewall.canonical(GOOD) == firewall.canonical(GOOD.replace("  ", "\t"))
        assert firewall.canonical(GOOD) != firewall.canonical(GOOD.replace("drop", "accept"))

    asyncio.run(namespaces.call(work))
    namespaces.close()


@pytest.mark.parametrize("vpn", [False, True])
def test_every_ruleset_of_a_machine_is_valid(tmp_path: Path, vpn: bool) -> None:
    namespaces = Namespaces(tmp_path)
    firewall = Firewall(namespaces)
    for ruleset in small(vpn=vpn).machine.rulesets:
        asyncio.run(namespaces.call(lambda ruleset=ruleset: firewall.canonical(ruleset.text)))  # type: ignore[misc]
    namespaces.close()
