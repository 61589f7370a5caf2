"""`alpha-ren guest`: the virtual machines that instances run in; how they are, and holding one still."""

import argparse

from appliance.cli_text import DONE, ask_supervisor, print_json, table
from appliance.contracts.machine import GuestNamed, Guests
from appliance.contracts.user import Done

NONE = "No instance is a virtual machine here."


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `guest` with what is below it."""
    guest = commands.add_parser("guest", help="the virtual machines that servers run in")
    guest.add_argument("--json", action="store_true", help="as one JSON document, for programs")
    guest.set_defaults(run=_list)
    below = guest.add_subparsers(title="commands", metavar="COMMAND")
    for name, about in (
        ("pause", "stop a guest's processors; what it had in hand goes to others after the lease"),
        ("resume", "let a paused guest go on"),
    ):
        command = below.add_parser(name, help=about)
        command.add_argument("instance", metavar="INSTANCE")
        command.set_defaults(run=_hold, call=f"guest.{name}")


def _list(options: argparse.Namespace) -> int:
    found = ask_supervisor(options, "guests", Guests)
    if options.json:
        print_json(found)
        return DONE
    rows = [
        (each.instance, each.state, each.accelerator, f"{each.cpus}", f"{each.memory_mb} MiB") for each in found.guests
    ]
    print("\n".join(table(("INSTANCE", "STATE", "ACCELERATOR", "CPUS", "MEMORY"), rows)) if rows else NONE)
    for note in found.notes:
        print(note)
    return DONE


def _hold(options: argparse.Namespace) -> int:
    ask_supervisor(options, options.call, Done, GuestNamed(instance=options.instance))
    return DONE
