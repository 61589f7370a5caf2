"""Machines and outside hosts of a lab as a test uses them: somewhere to run commands.

Seconds are floats. Every wait has a deadline and raises MachineLost, CommandFailed or DeadlinePassed; none hangs.
"""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from appliance.errors import DeadlinePassed
from scripts.labs import control, journal, launch, topology
from scripts.labs.errors import CommandFailed, LabError, MachineLost
from scripts.labs.machine import State

BOOT_S = 60.0
POLL_S = 0.05


@contextlib.contextmanager
def entry(lab: str, place: str, argv: Sequence[str], whose: str) -> Iterator[tuple[list[str], int]]:
    """Yield the command line that runs `argv` inside `place`, and the descriptor that has to be passed to it."""
    pidfd = control.ask(lab, control.Attach(name=place))[1]
    if pidfd is None:
        raise LabError(f"The lab `{lab}` gave no way into `{place}`.")
    try:
        yield [sys.executable, "-P", "-m", "scripts.labs.enter", str(pidfd), whose, *argv], pidfd
    finally:
        os.close(pidfd)


def entry_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which the command from `entry` finds its own code."""
    return {**os.environ, **(env or {}), "PYTHONPATH": str(launch.WORKING_COPY)}


class Place:
    """A machine or an outside host of a lab: somewhere to run commands."""

    _whose = "own"

    def __init__(self, lab: str, whole: topology.Topology, name: str) -> None:
        self.lab = lab
        self.name = name
        self._whole = whole

    def address(self, lan: str | None = None) -> str:
        """Return the IPv4 address on `lan`, or on the first LAN."""
        return topology.address(self._whole, self.name, lan or self._lans()[0])

    def _lans(self) -> list[str]:
        raise NotImplementedError

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: IO[str] | int | None = subprocess.DEVNULL,
        stdout: IO[str] | int | None = None,
        stderr: IO[str] | int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start `argv` and return it; it ends with the returned process, whose signals it gets, and with the lab.

        `env` and `cwd` reach commands on hosts; a machine's commands have the machine's own environment.
        """
        with entry(self.lab, self.name, argv, self._whose) as (command, pidfd):
            return subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=stderr, text=True, errors="replace",
                env=entry_environment(env), pass_fds=(pidfd,), cwd=cwd,
            )  # fmt: skip

    def run(
        self, argv: Sequence[str], *, check: bool = True, deadline_s: float = 30.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` to its end and return its output; with `check`, raise CommandFailed on a status other than 0."""
        process = self.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with process:
            try:
                out, err = process.communicate(stdin, timeout=deadline_s)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise CommandFailed(
                    f"`{' '.join(argv)}` on `{self.name}` did not end within {deadline_s:.0f} s: {out}{err}"
                ) from None
        if check and process.returncode:
            raise CommandFailed(f"`{' '.join(argv)}` on `{self.name}` ended with {process.returncode}: {out}{err}")
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def wait_for(self, what: str, condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
        """Wait until `condition()` is true; raise DeadlinePassed, naming `what`, when `deadline_s` passed first."""
        until = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > until:
                raise DeadlinePassed(f"On `{self.name}`, {what} did not happen within {deadline_s:.0f} s.", hint="")
            time.sleep(POLL_S)

    def succeeds(self, argv: Sequence[str]) -> bool:
        """Return whether `argv` ends with status 0 right now."""
        return self.run(argv, check=False).returncode == 0


class Host(Place):
    """An outside host: this computer's programs in namespaces of their own."""

    def _lans(self) -> list[str]:
        return list(next(host.lans for host in self._whole.host if host.name == self.name))


class Machine(Place):
    """A machine that boots the firmware's /usr."""

    _whose = "theirs"

    def _lans(self) -> list[str]:
        return [nic.lan for nic in self._spec().nics]

    def _spec(self) -> topology.Machine:
        return next(machine for machine in self._whole.machine if machine.name == self.name)

    def view(self) -> control.MachineView:
        """Return the machine's state as the keeper sees it now."""
        return next(each for each in control.view(self.lab).machines if each.name == self.name)

    def published(self, port: int) -> int:
        """Return the port on this computer's loopback address that leads to `port` of the machine."""
        return self.view().published[port]

    def wait_running(self, *, boots: int = 1, deadline_s: float = BOOT_S) -> None:
        """Wait until systemd has finished starting, in boot number `boots` or later; raise MachineLost."""
        self._await("running", boots, deadline_s)

    def wait_off(self, *, deadline_s: float = BOOT_S) -> None:
        """Wait until the machine is off; raise MachineLost."""
        self._await("off", 0, deadline_s)

    def _await(self, wanted: State, boots: int, deadline_s: float) -> None:
        request = control.Await(machine=self.name, state=wanted, boots=boots, deadline_s=deadline_s)
        if not control.ask(self.lab, request, deadline_s=deadline_s + 10)[0].reached:
            raise MachineLost(
                f"Machine `{self.name}` is {self.view().state}, not {wanted}, after up to {deadline_s:.0f} s. "
                f"Its console ends: {journal.console(self.lab, self.name)[-1500:]}"
            )

    def start(self) -> None:
        """Switch the machine on and wait until it runs."""
        boots = self.view().boots
        self._power("on")
        self.wait_running(boots=boots + 1)

    def poweroff(self) -> None:
        """Ask for a clean power-off and wait until the machine is off."""
        self._power("off")
        self.wait_off()

    def unplug(self) -> None:
        """End the machine at once and wait until it is off; what it wrote stays, since the page cache survives."""
        self._power("unplug")
        self.wait_off()

    def reboot(self) -> None:
        """Reboot from the inside and wait until the machine runs again."""
        boots = self.view().boots
        self.run(["systemctl", "reboot"], check=False)
        self.wait_running(boots=boots + 1)

    def _power(self, action: control.Action) -> None:
        control.ask(self.lab, control.Power(machine=self.name, action=action))

    def main_pid(self, unit: str) -> int:
        """Return the PID, inside the machine, of a unit's main process."""
        return int(self.run(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout)

    def kill(self, pid: int, signal_number: int) -> None:
        """Send a signal to a process of the machine, by its PID inside."""
        self.run(["sh", "-c", f"kill -{int(signal_number)} {pid}"])  # the firmware has no kill(1)

    def logs(self, unit: str | None = None, *options: str) -> str:
        """Return the machine's journal, of one unit where `unit` is given; `options` are journalctl's."""
        self._settle_journal()
        return journal.read(self.lab, self.name, unit, *options)

    def unexpected_errors(self, expected: Sequence[str] = ()) -> list[str]:
        """Return the journal's lines of priority `err` and worse that match none of the patterns in `expected`."""
        self._settle_journal()
        return journal.errors(self.lab, self.name, expected)

    def _settle_journal(self) -> None:
        if self.view().state == "running":
            self.run(["journalctl", "--sync"])  # what was logged before this call is in the files after it


def ended(pidfd: int, deadline_s: float) -> bool:
    """Wait for the end of the process behind `pidfd`; return False when `deadline_s` passed first (pidfd_open(2))."""
    return bool(select.select([pidfd], [], [], deadline_s)[0])
