"""A throwaway machine inside this one: a network namespace of its own, and the namespaces pinned in a folder of
its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from appliance.host.box import Box
from appliance.host.netns import Namespaces


class Heard(list[str]):
    """What the box said has happened."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, cause: str) -> None:
        """Note it."""
        self.append(cause)
        self._more.set()

    async def wait_for(self, cause: str, deadline_s: float = 10.0) -> None:
        """Return once it was heard; raise TimeoutError at the deadline."""
        async with asyncio.timeout(deadline_s):
            while cause not in self:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def throwaway(folder: Path, heard: Heard | None = None) -> AsyncIterator[Box]:
    """Give a box whose host namespace is a fresh one; nothing of it is left afterwards."""
    outer = Namespaces(folder / "outer")
    await outer.call(lambda: outer.make("host"))
    try:
        pinned = folder / "netns"
        async with Box(heard if heard is not None else Heard(), pinned=pinned, host=folder / "outer" / "host") as box:
            try:
                yield box
            finally:
                for name in await box.namespaces.call(box.namespaces.names):
                    await box.namespaces.call(lambda name=name: box.namespaces.remove(name))  # type: ignore[misc]
    finally:
        await outer.call(lambda: outer.remove("host"))
        outer.close()


async def said_in(namespaces: Namespaces, name: str, *words: str) -> str:
    """What a command says inside a namespace; it must not fail."""
    with namespaces.open(name) as descriptor:
        process = await asyncio.create_subprocess_exec(
            "nsenter",
            f"--net=/proc/self/fd/{descriptor}",
            *words,
            pass_fds=(descriptor,),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


def left_behind(runs: Path) -> list[Path]:
    """Return what is still pinned in the folders of test runs that have ended, as killed ones do; pytest cannot remove
    those.
    """
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    pinned = [Path(where) for _, where, kind, *_ in mounts if kind == "nsfs"]
    return [path for path in pinned if runs in path.parents and _has_ended(runs / path.relative_to(runs).parts[0])]


def _has_ended(run: Path) -> bool:
    """Whether nobody uses a folder that pytest has named; its lock holds the number of the process that does."""
    lock = run / ".lock"
    in_use = lock.exists() and Path(f"/proc/{lock.read_text()}").exists()
    return run.name.startswith(("pytest-", "garbage-")) and not in_use
