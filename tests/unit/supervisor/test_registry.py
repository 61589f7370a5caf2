"""The components of this firmware, found by their folders."""

import subprocess
import sys

HEAVY = ("aiohttp", "tornado", "jmespath", "cryptography", "urwid")

SCRIPT = f"""
import sys
from appliance.config import Config
from appliance.supervisor.registry import specs
names = [spec.name for spec in specs(Config())]
print(*names)
print(*[name for name in {HEAVY} if name in sys.modules])
"""


def test_declarations_are_read_without_loading_what_the_processes_need() -> None:
    """The supervisor reads them all at every boot, before anything else can start."""
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    names, heavy = told.stdout.split("\n")[:2]
    landscape = {"ardpx", "arclst", "arhav", "armail", "arsrv", "arvpn", "arwadm", "dns", "portal", "queue"}
    assert landscape <= set(names.split())
    assert heavy == ""


def test_the_supervisor_loads_only_what_it_needs_itself() -> None:
    """It is in memory for years."""
    script = f"import sys, appliance.supervisor.service; print(*[name for name in {HEAVY} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == ""
