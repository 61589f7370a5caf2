"""The watcher of a lab: starts its keeper in a new PID namespace, waits for its end and removes what is left on disk.

Called as `python -m scripts.labs.watcher`: one line of JSON on standard input is the plan, one line on standard
output is the answer once the lab is set up. Keeper and watcher die with each other: the keeper by the kernel's
parent-death signal, the watcher by having nothing left to wait for.
"""

import os
import signal
import sys
from types import FrameType

import msgspec

from appliance.errors import ApplianceError
from scripts.labs import cgroup, control, keeper, kernel, publish, state


def main() -> int:
    """Start and watch the lab on standard input; return the exit status."""
    ready = os.dup(1)
    os.dup2(2, 1)
    try:
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = os.read(0, 1)
            if not byte:
                return 2
            line += byte
        plan = msgspec.json.decode(line, type=keeper.Plan)
        state.sweep()
        lock = state.claim(plan.name)
    except (ApplianceError, msgspec.DecodeError, OSError) as error:
        os.write(ready, msgspec.json.encode(control.Reply(problem=keeper.first_problem(error).problem)) + b"\n")
        return 1
    try:
        return _watch(plan, ready)
    except (ApplianceError, OSError) as error:
        os.write(ready, msgspec.json.encode(control.Reply(problem=keeper.first_problem(error).problem)) + b"\n")
        return 1
    finally:
        state.erase(plan.name)
        os.close(lock)


def _watch(plan: keeper.Plan, ready: int) -> int:
    group = cgroup.base(plan.name)
    if cgroup.SYSTEMD_RUNS.exists():
        cgroup.enter(group / "watcher")  # systemd removes the scope with all groups in it when the last process is gone
    else:
        state.remember_group(plan.name, group)
    published = [
        keeper.Published(machine=machine.name, port=port, socket=publish.listen(port))
        for machine in plan.topology.machine
        for port in machine.publish
    ]
    watcher = os.getpid()
    alive, go = os.pipe()
    kernel.unshare(kernel.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(go)
            kernel.die_with_parent()
            # The parent may have died before the line above; then there is nobody to write this byte.
            if os.read(alive, 1):
                status = keeper.main(plan, published, group, watcher, ready)
        finally:
            os._exit(status)
    os.close(ready)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    os.write(go, b"g")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1


if __name__ == "__main__":
    sys.exit(main())
