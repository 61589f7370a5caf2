"""A throwaway machine inside this one: a network namespace of its own, and the namespaces pinned in a folder of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from appliance.host.box import Box
from appliance.host.netns import Namespaces


class Heard(list[str]):
    """What the box said has happened."""

    def __call__(self, cause: str) -> None:
        """Note it."""
        self.append(cause)


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
