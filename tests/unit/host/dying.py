"""An apply that dies: a process of its own makes a machine, and is killed at its n-th word to kernel or disk."""

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from appliance.host import dump
from appliance.host.box import Box
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import HOST, Bridge, File, Machine, Namespace, Nic, Route, Ruleset, Veth

WORDS = {"send", "sendto", "rename", "mkdir", "unlink"}
"""What makes a change begin, as the names of C functions; between two of them the machine does not change."""

CARD = "enp9s9"


def wanted(folder: Path) -> Machine:
    """One of every kind there is: a gateway with a card, a server, and a file."""
    rules = "table inet alpha-ren {\nchain input {\ntype filter hook input priority filter; policy drop;\n}\n}\n"
    return Machine(
        namespaces=(
            Namespace(name=HOST, sysctls=(("ipv6/conf/default/disable_ipv6", "1"),)),
            Namespace(name="edge", forwarding=True, sysctls=(("ipv6/conf/default/accept_ra", "0"),)),
            Namespace(name="srv", sysctls=(("ipv6/conf/default/accept_ra", "0"),)),
        ),
        bridges=(Bridge(name="cluster"),),
        nics=(Nic(namespace="edge", name="uplink", match=CARD, addresses=("192.0.2.7/24",), leased=()),),
        veths=(_leg("edge", 1), _leg("srv", 2)),
        routes=(
            Route(namespace="edge", destination="default", gateway="192.0.2.1"),
            Route(namespace="srv", destination="default", gateway="10.1.0.1"),
            Route(namespace="srv", destination="default6", gateway="fd00:1::1"),
        ),
        rulesets=tuple(Ruleset(namespace=name, text=rules) for name in (HOST, "edge", "srv")),
        files=(File(path=str(folder / "one.conf"), content="1\n"), File(path=str(folder / "two.conf"), content="2\n")),
    )


def _leg(namespace: str, number: int) -> Veth:
    return Veth(
        namespace=namespace,
        name="cluster",
        host_name=f"ar-{number}",
        bridge="cluster",
        mac=f"02:9c:00:00:00:0{number}",
        isolated=True,
        addresses=(f"10.1.0.{number}/24", f"fd00:1::{number}/64"),
    )


def apply(folder: Path, dies_at: int) -> None:
    """Make the machine whose host is in `folder`; be killed at the word with this number, or end with status 0."""
    said = 0

    def noted(frame: FrameType, event: str, called: Any) -> None:
        nonlocal said
        # What only asks changes nothing.
        if event == "c_call" and called.__name__ in WORDS and frame.f_code.co_filename != dump.__file__:
            if said == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            said += 1

    async def made() -> None:
        async with Box(lambda _cause: None, pinned=folder / "netns", host=folder / "outer" / "host") as box:
            outcome = await Reconciler(box).round(wanted(folder), "an apply")
            assert outcome.problems == (), outcome.problems

    threading.setprofile(noted)
    sys.setprofile(noted)
    asyncio.run(made())
