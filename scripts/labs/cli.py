"""The `scripts/lab` command."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from appliance.errors import ApplianceError
from scripts.labs import control, journal, launch, place, state, topology
from scripts.labs.errors import LabError, MachineLost

DEFAULT_NAME = "lab"
BOOT_S = 120.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/lab", description="Labs: the firmware's own /usr on virtual LANs.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a lab and leave it running")
    up.add_argument("topology", nargs="?", type=Path, help="TOML file (default: one box and one outside host)")
    up.add_argument("--name", default=DEFAULT_NAME, help="name of the lab (default: %(default)s)")
    up.add_argument("--tree", type=Path, default=launch.DEFAULT_TREE, help="the firmware's root tree")
    up.add_argument("--foreground", action="store_true", help="stay, and stop the lab when told to end (Ctrl-C)")
    execute = commands.add_parser("exec", help="run a command in a machine or host")
    execute.add_argument("place", help="the machine or host")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command and its arguments")
    logs = commands.add_parser("logs", help="show a machine's journal")
    logs.add_argument("machine")
    logs.add_argument("unit", nargs="?")
    logs.add_argument("--follow", "-f", action="store_true", help="go on as lines come")
    logs.add_argument("--console", action="store_true", help="what the console showed, instead of the journal")
    down = commands.add_parser("down", help="stop a lab")
    for each in (execute, logs, down):
        each.add_argument("--name", help="the lab, where several are up")
    commands.add_parser("ls", help="show what is up")
    return parser


def main(argv: list[str]) -> int:
    """Carry out one command; return the exit status."""
    try:
        return _carry_out(_parser().parse_args(argv))
    except ApplianceError as error:
        print(f"scripts/lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _carry_out(options: argparse.Namespace) -> int:
    if options.command == "up":
        return _up(options)
    if os.geteuid() == 0:
        state.sweep()
    match options.command:
        case "exec":
            return _exec(state.the_only(options.name), options.place, options.argv)
        case "logs":
            return _logs(options)
        case "down":
            return _down(state.the_only(options.name))
    for name in state.names():
        print(_describe(control.view(name)))
    return 0


def _up(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    plan = topology.default() if options.topology is None else topology.load(options.topology)
    if options.foreground:
        process = launch.start(options.name, plan, options.tree, leashed=True, log=None)
    else:
        launch.check_computer()
        with launch.log_of(options.name).open("wb") as log:
            process = launch.start(options.name, plan, options.tree, leashed=False, log=log)
    try:
        for machine in plan.machine:
            if machine.start:
                _wait_running(options.name, machine.name)
        print(_describe(control.view(options.name)))
        print(f"Ready after {time.monotonic() - begun:.1f} s. {_next_steps(options.name, plan)}", flush=True)
        if options.foreground:
            _stay(process)
    except (ApplianceError, KeyboardInterrupt):
        if options.foreground or process.poll() is not None:
            process.terminate()
            process.wait()
        else:  # what went wrong can be looked at best while it is there
            print(f"The lab is left as it is. {_next_steps(options.name, plan)}", file=sys.stderr)
        raise
    return 0


def _wait_running(lab: str, machine: str) -> None:
    wait = control.Await(machine=machine, state="running", boots=1, deadline_s=BOOT_S)
    if not control.ask(lab, wait, deadline_s=BOOT_S + 10)[0].reached:
        said = journal.console(lab, machine)[-1500:]
        raise MachineLost(f"Machine `{machine}` did not come up. Its console ends: {said}")


def _stay(process: subprocess.Popen[bytes]) -> None:
    def leave(_number: int, _frame: object) -> None:
        process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    status = process.wait()
    if status:
        raise LabError(f"The lab ended by itself, with status {status}.")
    print("The lab is down.", flush=True)


def _describe(view: control.LabView) -> str:
    lines = [f"Lab `{view.name}`"]
    for machine in view.machines:
        where = ", ".join(f"{address} on {lan}" for lan, address in machine.addresses.items())
        lines.append(f"  {machine.name:<12} {machine.state:<9} {where}")
        lines += [f"  {'':<12} port {inner} is 127.0.0.1:{outer}" for inner, outer in machine.published.items()]
        if 443 in machine.published:
            lines.append(f"  {'':<12} console: https://127.0.0.1:{machine.published[443]}/")
    for host in view.hosts:
        where = ", ".join(f"{address} on {lan}" for lan, address in host.addresses.items())
        lines.append(f"  {host.name:<12} {'outside':<9} {where}")
    return "\n".join(lines)


def _next_steps(lab: str, plan: topology.Topology) -> str:
    name = "" if lab == DEFAULT_NAME else f" --name {lab}"
    steps = []
    if plan.machine:
        box = plan.machine[0].name
        steps += [f"scripts/lab exec{name} {box} -- alpha-ren status", f"scripts/lab logs{name} --follow {box}"]
    if plan.host:
        steps.append(f"scripts/lab exec{name} {plan.host[0].name} -- bash")
    steps.append(f"scripts/lab down{name}")
    return "Next:\n" + "\n".join(f"  {step}" for step in steps)


def _exec(lab: str, where: str, argv: list[str]) -> int:
    command = argv[1:] if argv[:1] == ["--"] else argv
    machines = [machine.name for machine in control.view(lab).machines]
    whose = "theirs" if where in machines else "own"
    with place.entry(lab, where, command or ["bash"], whose) as (line, pidfd):
        os.set_inheritable(pidfd, True)
        sys.stdout.flush()
        os.execve(line[0], line, place.entry_environment())


def _logs(options: argparse.Namespace) -> int:
    lab = state.the_only(options.name)
    if options.machine not in [machine.name for machine in control.view(lab).machines]:
        raise LabError(f"The lab `{lab}` has no machine called `{options.machine}`.", hint="`scripts/lab ls` shows it.")
    if options.console:
        print(journal.console(lab, options.machine), end="")
        return 0
    follow = ["--follow"] if options.follow else []
    return subprocess.run(journal.command(lab, options.machine, options.unit, *follow), check=False).returncode


def _down(lab: str) -> int:
    watcher = os.pidfd_open(control.view(lab).watcher)
    control.ask(lab, control.Down())
    if not place.ended(watcher, 30.0):
        raise LabError(f"The lab `{lab}` did not end within 30 s.")
    return 0
