"""Network namespaces pinned in a directory, and the one thread in which all that is blocking about networks happens.

A thread may enter a namespace by itself (setns(2)), so one helper thread serves them all and the event loop never
waits for the kernel. Everything here but `call` runs in that thread.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pyroute2.netlink.exceptions import NetlinkError

from appliance.errors import ApplianceError
from appliance.topology import HOST

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2
PINNED = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


class KernelRefused(ApplianceError):
    """The kernel did not do what it was asked to."""

    code = "kernel-refused"
    hint = "The journal of the supervisor has the step; it is tried again."


class Namespaces:
    """The namespaces pinned in `directory`, around the one at `host`."""

    def __init__(self, directory: Path = PINNED, host: Path = Path("/proc/self/ns/net")) -> None:
        self.directory = directory
        self._host = os.open(host, os.O_RDONLY | os.O_CLOEXEC)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel", initializer=self._start)

    def _start(self) -> None:
        _setns(self._host)

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` in the helper thread and return its result.

        Raises KernelRefused, which happens in passing, too: what is looked at may go away at that moment.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (OSError, NetlinkError) as error:
            raise KernelRefused(f"The kernel does not play along: {error}.") from error

    def close(self) -> None:
        """End the helper thread once its work in hand is done."""
        self._thread.shutdown()
        os.close(self._host)

    def path(self, name: str) -> Path:
        """Return where a namespace is pinned."""
        return self.directory / name

    def names(self) -> tuple[str, ...]:
        """Return the pinned namespaces that really are ones: a file that nothing is mounted on is none."""
        return tuple(name for name in self.inodes() if name != HOST)

    def inodes(self) -> dict[str, int]:
        """Return the host's namespace and the pinned ones, each with what tells it from an earlier one of its
        name.
        """
        found = {HOST: os.stat(self._host).st_ino}
        try:
            folder = os.stat(self.directory).st_dev
            entries = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return found
        for name in entries:
            with suppress(FileNotFoundError):
                pinned = os.stat(f"{self.directory}/{name}")
                if pinned.st_dev != folder:
                    found[name] = pinned.st_ino
        return found

    def inode(self, name: str) -> int | None:
        """Return what tells this namespace from an earlier one of the same name (on nsfs), or None where there is
        none.
        """
        if name == HOST:
            return os.stat(self._host).st_ino
        try:
            found, folder = os.stat(self.path(name)), os.stat(self.directory)
        except FileNotFoundError:
            return None
        return None if found.st_dev == folder.st_dev else found.st_ino

    def make(self, name: str) -> None:
        """Pin a new namespace."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.path(name)
        path.touch(mode=0o444)
        try:
            _check(_libc.unshare(CLONE_NEWNET), f"make namespace {name}")
            # The bind mount keeps the namespace alive while nobody is in it (ip-netns(8)).
            pin = _libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), b"none", MS_BIND, None)
            _check(pin, f"pin namespace {name}")
        except KernelRefused:
            path.unlink()
            raise
        finally:
            _setns(self._host)

    def remove(self, name: str) -> None:
        """Take the pin away: the namespace ends with its last process; moved NICs come back to the host then."""
        path = self.path(name)
        while self.inode(name) is not None:
            _check(_libc.umount2(os.fsencode(path), MNT_DETACH), f"unpin namespace {name}")
        with suppress(FileNotFoundError):
            path.unlink()

    @contextmanager
    def open(self, name: str) -> Iterator[int]:
        """Give a file descriptor of a namespace."""
        if name == HOST:
            yield self._host
            return
        descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Let the helper thread be in a namespace for a while."""
        with self.open(name) as descriptor:
            _setns(descriptor)
        try:
            yield
        finally:
            _setns(self._host)

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Let the helper thread be in a namespace of its own that ends with the block."""
        _check(_libc.unshare(CLONE_NEWNET), "make a scratch namespace")
        try:
            yield
        finally:
            _setns(self._host)


def _setns(descriptor: int) -> None:
    _check(_libc.setns(descriptor, CLONE_NEWNET), "enter a namespace")


def _check(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise KernelRefused(f"The kernel refused to {what}: {reason}.")
