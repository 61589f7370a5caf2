"""Run a command inside a machine or host of a lab: `python -m scripts.labs.enter PIDFD own|theirs COMMAND...`.

PIDFD is an inherited descriptor of the place's first process, so no PID can be mistaken. The command gets that
process's environment with `theirs`, this process's with `own`. It dies with this process, which passes signals on to
it and ends as it ends. (nsenter(1) offers neither.) Only the standard library is used, and all of it before the root
changes.
"""

import os
import signal
import sys
from types import FrameType

from scripts.labs import kernel

DEFAULTS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
SPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWCGROUP
)


def _pid(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
        fields = dict(line.split(":", 1) for line in info)
    return int(fields["Pid"])


def _environment(pid: int, whose: str) -> dict[str, str]:
    if whose == "own":
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = [pair.partition(b"=") for pair in file.read().split(b"\0") if pair]
    theirs = {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}
    theirs.pop("NOTIFY_SOCKET", None)  # it belongs to PID 1
    return {**DEFAULTS, **({"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}), **theirs}


def main(argv: list[str]) -> int:
    """Run the command; return its exit status, 127 where it does not exist in there."""
    pidfd, whose, command = int(argv[1]), argv[2], argv[3:]
    pid = _pid(pidfd)
    environment = _environment(pid, whose)
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = os.getcwd() if whose == "own" else "/"
    kernel.setns(pidfd, SPACES)
    os.close(pidfd)
    os.fchdir(root)
    os.chroot(".")
    os.chdir(folder if os.path.isdir(folder) else "/")
    child = os.fork()
    if child == 0:
        try:
            kernel.die_with_parent()
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvpe(command[0], command, environment)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv))
