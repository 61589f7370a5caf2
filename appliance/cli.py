"""The command `alpha-ren`: what a person at the machine, and a script, asks the appliance."""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from appliance import cli_guest, cli_queue, config
from appliance.cli_text import (
    AWAY,
    DONE,
    FAILED,
    REFUSED,
    ask_supervisor,
    error_text,
    is_away,
    person,
    positive,
    print_json,
    table,
)
from appliance.contracts.machine import (
    CONFIRM_WITHIN_S,
    CONTROL_ENDPOINT,
    Applied,
    ConfigText,
    Confirmation,
    Firewall,
    InstanceUse,
    MachineStatus,
    NicStatus,
    PendingChange,
    Plan,
    Repair,
    Reverted,
)
from appliance.contracts.user import Done
from appliance.errors import ApplianceError, InvalidInput, NotFound, Problem, Unavailable
from appliance.topology import MachineUse, Waits

EXIT_CODES = """\
exit status:
  0  done; for `health`: the machine is ready
  1  it did not work; for `health`: the machine is not ready
  2  what was given is not valid, nothing was changed
  3  a part that is needed does not answer

An error is two lines on standard error: `code: sentence`, then what to do about it. Codes are stable.
"""
POLL_S = 0.5

BESIDES = """\
Besides: answers to all of these, neighbour discovery on every network, and what a DHCP client says and hears.
All else is dropped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status (see EXIT_CODES)."""
    options = _parser().parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except ApplianceError as error:
        print(error_text(error.problem), file=sys.stderr)
        return exit_status(error)
    except BrokenPipeError:
        # The reader, `head` for one, has seen enough; Python would complain again when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return 130


def exit_status(error: ApplianceError) -> int:
    """Return the exit status that fits an error."""
    if is_away(error):
        return AWAY
    return REFUSED if 400 <= error.problem.status < 500 else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpha-ren",
        description="Look at this ALPHA-REN machine and change its configuration. Everything but `check` needs root.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--socket", default=CONTROL_ENDPOINT, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    status = commands.add_parser("status", help="what this machine is, whether it is ready, how each component does")
    status.add_argument("--json", action="store_true", help="as one JSON document, for programs")
    status.set_defaults(run=_status)

    plan = commands.add_parser("plan", help="what the supervisor would change next; nothing when all is well")
    plan.add_argument("--json", action="store_true", help="as one JSON document, for programs")
    plan.set_defaults(run=_plan)

    firewall = commands.add_parser("firewall", help="every flow that is let through, who asked for it, and why")
    firewall.add_argument("name", nargs="?", default="", metavar="NAME", help="only those of a component or instance")
    firewall.add_argument("--json", action="store_true", help="as one JSON document, for programs")
    firewall.set_defaults(run=_firewall)

    logs = commands.add_parser("logs", help="the journal of one component")
    logs.add_argument("component", metavar="COMPONENT", help="a component, an instance (arsrv-1), or `supervisor`")
    logs.add_argument("-n", "--lines", type=positive, default=50, metavar="N", help="the last N lines (default: 50)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until interrupted")
    logs.set_defaults(run=_logs)

    cli_queue.add_commands(commands)
    cli_guest.add_commands(commands)

    health = commands.add_parser("health", help="is the machine ready: exit status 0 means yes")
    health.add_argument("--wait", action="store_true", help="wait until it is")
    health.add_argument("--timeout", type=positive, default=300, metavar="S", help="at most S seconds (default: 300)")
    health.set_defaults(run=_health)

    check = commands.add_parser("check", help="validate a configuration file; changes nothing")
    check.add_argument("file", type=Path, metavar="CONFIG.toml")
    check.set_defaults(run=_check)

    apply = commands.add_parser("apply", help="validate a configuration file and put it in force")
    apply.add_argument("file", type=Path, metavar="CONFIG.toml")
    apply.add_argument(
        "--confirm-within",
        type=positive,
        default=int(CONFIRM_WITHIN_S),
        metavar="S",
        help="undo what touches a way into the machine unless it is confirmed within S seconds (default: 60)",
    )
    apply.set_defaults(run=_apply)

    confirm = commands.add_parser("confirm", help="keep a change that is in force on trial")
    confirm.set_defaults(run=_confirm)

    revert = commands.add_parser("revert", help="undo a change that is in force on trial, before its time is up")
    revert.set_defaults(run=_revert)
    return parser


def _status(options: argparse.Namespace) -> int:
    status = ask_supervisor(options, "status", MachineStatus)
    if options.json:
        print_json(status)
    else:
        print(status_text(status))
    return DONE


def _repair_text(repair: Repair) -> str:
    when = time.strftime("%F %T", time.localtime(repair.at))
    more = f" and {len(repair.steps) - 1} more steps" if len(repair.steps) > 1 else ""
    return f"{when} in {repair.took_s:.2f} s: {repair.steps[0]}{more}, because {repair.cause}"


def nic_text(nic: NicStatus) -> str:
    """Return a network card for a person: its name and role, and what tells it from others."""
    place = ", ".join(part for part in (nic.driver, nic.bus, nic.mac) if part)
    return "  ".join((f"{nic.name}: {nic.role} ({place})", *nic.addresses))


def status_text(status: MachineStatus) -> str:
    """Return the status for a person: facts, then a table of units, then what is wrong."""
    state = "READY" if status.ready else "NOT READY"
    step = f": {status.step}" if status.step else ""
    lines = [f"{status.name}  {status.version} ({status.profile})  {state}{step}"]
    facts = (
        ("console", status.console_url),
        ("uplink", "  ".join(status.uplink)),
        ("certificate", status.fingerprint),
        ("queue key", status.queue_key),
        ("configuration", status.config_in_force),
        ("on trial", pending_text(status.pending) if status.pending else ""),
        ("load", load_text(status.use) if status.use else ""),
        ("boot", "  ".join(f"{phase.name} {phase.seconds:.1f} s" for phase in status.boot)),
        *(("network card", nic_text(nic)) for nic in status.nics),
        *(("warning", f"{warning.code}: {warning.message} {warning.hint}") for warning in status.warnings),
        *(("note", note) for note in status.notes),
        *(("repaired", _repair_text(repair)) for repair in status.repairs[-3:]),
    )
    lines += [f"  {name:<14}{value}" for name, value in facts if value]
    rows = [
        (unit.component, unit.instance, unit.name, unit.state, f"{unit.restarts}", f"{unit.memory_mb:.0f} MiB")
        for unit in status.units
    ]
    lines += ["", *table(("COMPONENT", "INSTANCE", "UNIT", "STATE", "RESTARTS", "MEMORY"), rows)]
    if status.instances:
        lines += ["", *table(USE_HEAD, [use_row(use) for use in status.instances])]
    if status.last_error:
        lines += ["", error_text(status.last_error)]
    return "\n".join(lines)


USE_HEAD = ("INSTANCE", "CPU", "MEMORY", "OF", "TASKS", "OF", "WAITS FOR CPU", "MEMORY", "DISK", "OUT OF MEMORY")


def use_row(use: InstanceUse) -> tuple[str, ...]:
    """Return what an instance uses, a cell for each of USE_HEAD."""
    memory = [_counted(size, " MiB") for size in (use.memory_mb, use.memory_max_mb)]
    tasks = [_counted(number) for number in (use.tasks, use.tasks_max)]
    oom = f"killed {use.oom_kills} times" if use.oom_kills else "-"
    return (use.instance, _counted(use.cpu_percent, " %"), *memory, *tasks, *_waits(use.waits), oom)


def load_text(use: MachineUse) -> str:
    """Return what the machine uses, in a line."""
    cpu, memory, disk = _waits(use.waits)
    return (
        f"{use.load:.2f} on {use.cpus} CPUs ({use.cpu_percent:.0f} %), {use.memory_mb:.0f} of "
        f"{use.memory_total_mb:.0f} MiB; waits for CPU {cpu}, memory {memory}, disk {disk}"
    )


def _waits(waits: Waits) -> tuple[str, str, str]:
    return _counted(waits.cpu, " %"), _counted(waits.memory, " %"), _counted(waits.io, " %")


def _counted(number: float | None, unit: str = "") -> str:
    return "-" if number is None else f"{number:.0f}{unit}"


def _plan(options: argparse.Namespace) -> int:
    plan = ask_supervisor(options, "plan", Plan)
    if options.json:
        print_json(plan)
    elif plan.steps:
        rows = [(step.action, step.kind, step.name, step.why) for step in plan.steps]
        print("\n".join(table(("ACTION", "KIND", "NAME", "WHY"), rows)))
    else:
        print("Nothing to do: the machine is as it should be.")
    return DONE


def _firewall(options: argparse.Namespace) -> int:
    firewall = ask_supervisor(options, "firewall", Firewall)
    flows = [flow for flow in firewall.flows if options.name in ("", flow.source, flow.target, flow.component)]
    if options.json:
        print_json(Firewall(flows=tuple(flows)))
        return DONE
    rows = [
        (flow.source, flow.target, flow.protocol, str(flow.port), flow.to or "-", flow.component, flow.reason)
        for flow in sorted(flows, key=lambda flow: (flow.source, flow.target, flow.port))
    ]
    print("\n".join(table(("FROM", "TO", "PROTOCOL", "PORT", "ONLY", "COMPONENT", "WHY"), rows)))
    print(f"\n{BESIDES}")
    return DONE


def _logs(options: argparse.Namespace) -> int:
    component: str = options.component
    if not re.fullmatch("[a-z0-9-]{1,64}", component):
        raise InvalidInput(f"`{component}` is not the name of a component.", hint="`alpha-ren status` lists them.")
    if component != "supervisor":
        _require_known(options, component)
    follow = ["--follow"] if options.follow else []
    command = ["journalctl", f"--lines={options.lines}", *follow, *log_units(component)]
    sys.stdout.flush()
    _become(command)


def log_units(component: str) -> list[str]:
    """Return journalctl's options that pick the units of a component, an instance or the supervisor (journalctl(1))."""
    if component == "supervisor":
        return ["--unit=alpha-ren-supervisor.service"]
    return [f"--unit=alpha-ren-{component}.service", f"--unit=alpha-ren-{component}-*.service"]


def _require_known(options: argparse.Namespace, name: str) -> None:
    """Refuse a name that no unit has; where the supervisor is away, whose logs are wanted most, any name will do."""
    try:
        units = ask_supervisor(options, "status", MachineStatus).units
    except Unavailable:
        return
    known = {unit.component for unit in units} | {unit.instance for unit in units}
    if name not in known:
        names = ", ".join((*sorted(known), "supervisor"))
        raise NotFound(f"There is no component named {name}.", hint=f"There are: {names}.")


def _become(command: list[str]) -> NoReturn:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be started: {error}.", hint="This is for the box itself.") from error


def _health(options: argparse.Namespace) -> int:
    until = time.monotonic() + (options.timeout if options.wait else 0)
    while True:
        try:
            status = ask_supervisor(options, "status", MachineStatus)
        except Unavailable as error:
            if time.monotonic() >= until:
                raise
            problem = error.problem
        else:
            if status.ready:
                print("ready")
                return DONE
            problem = not_ready(status)
        if time.monotonic() >= until:
            print(error_text(problem), file=sys.stderr)
            return FAILED
        time.sleep(min(POLL_S, max(0.0, until - time.monotonic())))


def not_ready(status: MachineStatus) -> Problem:
    """Return why the machine is not ready."""
    waiting = [f"{unit.name} is {unit.state}" for unit in status.units if unit.state != "active"]
    reason = status.step or ", ".join(waiting[:3]) or "the self-test has not passed yet"
    hint = f"{status.last_error.message} {status.last_error.hint}" if status.last_error else ""
    return Problem(code="not-ready", message=f"The machine is not ready: {reason}.", hint=hint.strip(), status=503)


def _check(options: argparse.Namespace) -> int:
    config.load(options.file)
    print(f"{options.file} is valid.")
    return DONE


def _apply(options: argparse.Namespace) -> int:
    config.load(options.file)
    text = options.file.read_text(encoding="utf-8")
    asked = ConfigText(text=text, confirm_within_s=options.confirm_within)
    applied = ask_supervisor(options, "apply", Applied, asked, deadline_s=120.0)
    print(f"In force: {applied.digest[:12]}, {applied.steps} steps taken.")
    if applied.pending is not None:
        print(f"On trial: {pending_text(applied.pending)}")
    return DONE


def pending_text(pending: PendingChange) -> str:
    """Return what a change on trial touches, how long it has, and how it is kept."""
    seconds = f"{pending.seconds_left:.0f} seconds"
    return f"{'; '.join(pending.touched)}. Undone in {seconds}, unless `alpha-ren confirm` keeps it."


def _confirm(options: argparse.Namespace) -> int:
    ask_supervisor(options, "confirm", Done, Confirmation(who=person()))
    print("The change stays.")
    return DONE


def _revert(options: argparse.Namespace) -> int:
    steps = ask_supervisor(options, "revert", Reverted, Confirmation(who=person()), deadline_s=120.0).steps
    print(f"The configuration before the change is in force again, {steps} steps taken.")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
