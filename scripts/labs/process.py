"""Child processes of a keeper, which is PID 1 of its lab and so inherits every orphan in it.

asyncio's own child watchers wait for single PIDs and leave orphans as zombies; here SIGCHLD reaps whatever has ended
and hands the status to whoever waits for it. Everything started here dies with the keeper: the kernel ends a PID
namespace with its first process.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scripts.labs import kernel
from scripts.labs.errors import LabError


class Children:
    """The processes that the keeper started; make it on the running event loop, in a process without threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def start(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
        own_pids: bool = False,
    ) -> int:
        """Start `argv` with no input, its output appended to `log`; return its PID.

        `prepare` runs in the new process, to enter namespaces and groups; `own_pids` makes it PID 1 of a namespace.
        """
        if own_pids:
            kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            _become(argv, log, os.environ if env is None else env, prepare)
        if own_pids:
            kernel.setns(self._own_pids, kernel.CLONE_NEWPID)
        self._ends[pid] = self._loop.create_future()
        return pid

    async def wait(self, pid: int) -> int:
        """Wait for the end of a process from `start`; return its exit status, negative for a signal."""
        status = await asyncio.shield(self._ends[pid])
        self._ends.pop(pid, None)
        return status

    async def run(self, argv: Sequence[str], *, log: Path, deadline_s: float) -> int:
        """Run `argv` to its end and return its status; raise LabError when it takes longer than `deadline_s`."""
        pid = self.start(argv, log=log)
        try:
            return await asyncio.wait_for(self.wait(pid), deadline_s)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise LabError(f"`{argv[0]}` did not end within {deadline_s:.0f} s; see {log}.") from None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            end = self._ends.get(pid)
            if end is not None and not end.done():
                end.set_result(os.waitstatus_to_exitcode(status))


def _become(argv: Sequence[str], log: Path, env: Mapping[str, str], prepare: Callable[[], None] | None) -> None:
    """Turn the forked child into `argv`; never returns."""
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        if prepare is not None:
            prepare()
        os.closerange(3, 1024)
        os.execvpe(argv[0], list(argv), dict(env))
    except BaseException as error:  # noqa: BLE001 - a forked child must never run on into its parent's code
        os.write(2, f"{argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def tail(log: Path) -> str:
    """Return the end of a short-lived program's log, for the sentence about its failure."""
    return log.read_text(encoding="utf-8", errors="replace")[-400:].strip()
