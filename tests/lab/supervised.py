"""A box as its supervisor sees it: what is left to do, what was done, and which processes run."""

import json
import re

from tests.lab.box import Box
from tests.lab.systems import wait_until

SUPERVISOR = "alpha-ren-supervisor.service"


def plan(box: Box) -> list[str]:
    """What the supervisor would do now."""
    steps = json.loads(box.machine.run(["alpha-ren", "plan", "--json"]).stdout)["steps"]
    return [f"{step['action']} {step['kind']} {step['name']}" for step in steps]


def settled(box: Box) -> bool:
    """Whether everything is as it should be and every process active."""
    return plan(box) == [] and all(unit["state"] == "active" for unit in box.status()["units"])


def wait_settled(box: Box) -> None:
    """Wait until everything is as it should be."""
    wait_until("the machine is as it should be", lambda: settled(box), 60.0)


def processes(box: Box) -> dict[str, int]:
    """The main process of every declared unit."""
    return {unit["name"]: box.machine.main_pid(unit["name"]) for unit in box.status()["units"]}


def steps_since(box: Box, cursor: str) -> list[str]:
    """The steps the supervisor took since a place in the journal."""
    argv = ["journalctl", "-u", SUPERVISOR, "-o", "cat", f"--after-cursor={cursor}"]
    said = box.machine.run(argv).stdout
    return re.findall(r"reconcile: ((?:make|change|remove|write|start|restart|reload) .*)", said)


def cursor(box: Box) -> str:
    """The end of the journal."""
    said = box.machine.run(["journalctl", "-n", "0", "--show-cursor"]).stdout
    return said.rpartition("-- cursor: ")[2].strip()


def apply(box: Box, text: str) -> None:
    """Put a configuration in force."""
    box.machine.run(
        ["sh", "-c", f"printf '%s' '{text}' > /tmp/config.toml && alpha-ren apply /tmp/config.toml"], deadline_s=60
    )
