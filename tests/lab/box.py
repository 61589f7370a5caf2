"""A box in a lab, ready for work: set up, logged in to, with an outside host on its uplink."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from appliance import config
from scripts.labs import topology
from scripts.labs.place import Host, Machine
from scripts.labs.session import Lab
from tests.console import ConsoleClient
from tests.lab.systems import wait_until

READY_S = 90.0
CONFIG_CREDENTIAL = "alpha-ren.config"

PORTS_TRIED = (*range(1, 1025), 2019, 3000, 5353, 7156, 7180, 7182, 7190, 7191, 8080, 8443, 9090, 51820)

CONNECT = """
import asyncio, sys
address, *ports = sys.argv[1:]

async def answers(port, at_once):
    async with at_once:
        try:
            async with asyncio.timeout(2):
                _, writer = await asyncio.open_connection(address, port)
        except OSError:
            return False
        writer.close()
        return True

async def main():
    at_once = asyncio.Semaphore(256)
    found = await asyncio.gather(*(answers(int(port), at_once) for port in ports))
    print(*(port for port, is_open in zip(ports, found) if is_open))

asyncio.run(main())
"""

# What a test provokes: a killed process is an error line of systemd's, and says nothing about the firmware.
PROVOKED = (r"Main process exited, code=killed, status=9/KILL", r"Failed with result 'signal'")


class Box:
    """The machine `box` and the host `outside` of one lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.machine: Machine = lab.machine("box")
        self.outside: Host = lab.host("outside")
        self.address = self.machine.address()
        self.console = ConsoleClient(f"https://127.0.0.1:{self.machine.published(443)}")

    def hook(self, flow: str) -> str:
        """Return the URL at which the outside host sends messages to a flow."""
        return f"https://{self.address}/hooks/{flow}"

    def status(self) -> dict[str, Any]:
        """Return what `alpha-ren status --json` says on the box."""
        status: dict[str, Any] = json.loads(self.machine.run(["alpha-ren", "status", "--json"]).stdout)
        return status

    def wait_ready(self, deadline_s: float = READY_S) -> None:
        """Wait until the box says on 443 that it is ready."""

        def ready() -> bool:
            try:
                return self.console.get("/ready").status == 200
            except OSError:
                return False

        wait_until("the box is ready", ready, deadline_s)

    def set_up(self) -> None:
        """Set the administrator's password with the pairing code, and log in."""
        answer = self.console.set_up(self.status()["pairing"]["code"])
        assert answer.status == 303, answer.body
        assert self.console.log_in().status == 303

    def put_flow(self, document: dict[str, Any]) -> None:
        """Put a flow and wait until both servers run it."""
        answers = []

        def taken() -> bool:
            answers.append(self.console.put_flow(document))
            return answers[-1].status != 503

        # 503 comes with Retry-After: right after a restart the portal may not have found the queue again.
        wait_until(f"the portal takes {document['name']}", taken)
        assert answers[-1].status == 200, answers[-1].body
        self.wait_flow_runs(document["name"])

    def wait_flow_runs(self, name: str) -> None:
        """Wait until both servers have heard of a flow."""
        # A server that does not know it answers 404; the proxy takes turns, so ask more often than there are servers.
        wait_until(
            f"the servers run {name}",
            lambda: all(self.console.get(f"/hooks/{name}").status == 405 for _ in range(4)),
        )

    def depths(self, flow: str) -> list[dict[str, Any]]:
        """Return the depths of a flow's addresses."""
        stats = json.loads(self.machine.run(["alpha-ren", "queue", "--json"]).stdout)
        return [depth for depth in stats["depths"] if f"/flow.{flow}." in f"/{depth['address'].rpartition('/')[2]}"]

    def wait_at_rest(self, flow: str, deadline_s: float = 60.0) -> None:
        """Wait until no message of a flow waits or is in hand."""

        def at_rest() -> bool:
            depths = self.depths(flow)
            return bool(depths) and not any(depth["ready"] or depth["leased"] for depth in depths)

        wait_until(f"{flow} is at rest", at_rest, deadline_s)

    def wait_for_attempts(self, flow: str, attempts: int, deadline_s: float = 60.0) -> None:
        """Wait until a message of a flow was tried that often."""

        def tried() -> bool:
            recent = self.console.picture()["recent"]
            return any(f"flow.{flow}." in each["address"] and each["attempt"] >= attempts for each in recent)

        wait_until(f"{flow} was tried {attempts} times", tried, deadline_s)

    def unit(self, instance: str) -> str:
        """Return the name of an instance's main unit."""
        return f"alpha-ren-{instance}.service"

    def kill(self, instance: str, number: int) -> None:
        """Send a signal to an instance's main process."""
        self.machine.kill(self.machine.main_pid(self.unit(instance)), number)

    def keep_down_when_killed(self, instance: str) -> None:
        """Make systemd wait an hour before it restarts the instance, so that the others have to do without it."""
        folder = f"/run/systemd/system/{self.unit(instance)}.d"
        script = f"mkdir -p {folder} && printf '[Service]\\nRestartSec=3600\\n' > {folder}/90-test.conf"
        self.machine.run(["sh", "-c", f"{script} && systemctl daemon-reload"])

    def let_restart(self, instance: str) -> None:
        """Undo keep_down_when_killed and start the instance."""
        unit = self.unit(instance)
        self.machine.run(["sh", "-c", f"rm -r /run/systemd/system/{unit}.d && systemctl daemon-reload"])
        self.machine.run(["systemctl", "restart", unit])

    def server_connected_to(self, address: str) -> str:
        """Return the integration server that has a connection to `address` right now."""
        for name in ("arsrv-1", "arsrv-2"):
            argv = ["nsenter", f"--net=/run/netns/{name}", "ss", "-Htn", "state", "established", "dst", address]
            if self.machine.run(argv).stdout.strip():
                return name
        raise AssertionError(f"no server is connected to {address}")

    def open_ports(self) -> set[int]:
        """Return the TCP ports of the box that answer the outside host."""
        argv = [sys.executable, "-c", CONNECT, self.address, *map(str, PORTS_TRIED)]
        return {int(port) for port in self.outside.run(argv, deadline_s=180).stdout.split()}

    def unexpected_errors(self) -> list[str]:
        """Return the error lines of the journal that no test provoked."""
        return self.machine.unexpected_errors(PROVOKED)


def with_guests() -> topology.Topology:
    """Return the default topology with a box that has images of /usr to hand to guests."""
    plain = topology.default()
    [machine] = plain.machine
    return msgspec.structs.replace(plain, machine=(msgspec.structs.replace(machine, guests=True),))


@contextmanager
def started(
    settings: config.Config, *, set_up: bool = True, plan: topology.Topology | None = None
) -> Iterator[Box]:
    """A lab with a ready box for as long as the context lasts."""
    plan = plan or topology.default()
    [machine] = plan.machine
    credentials = {**machine.credentials, CONFIG_CREDENTIAL: msgspec.toml.encode(settings).decode()}
    plan = msgspec.structs.replace(plan, machine=(msgspec.structs.replace(machine, credentials=credentials),))
    with Lab(plan) as lab:
        box = Box(lab)
        try:
            box.wait_ready()
            if set_up:
                box.set_up()
        except BaseException:
            lab.save_logs("setup")
            raise
        yield box
