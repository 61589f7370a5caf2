"""The one thread that has the database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from appliance.arclst.state import State

T = TypeVar("T")


class Writer:
    """Runs functions over the state one after another, away from the event loop."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")

    async def __aenter__(self) -> Self:
        self._state = await self._run(lambda: State(self._path, self._clock))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._run(lambda: self._state.__exit__(None, None, None))
        self._thread.shutdown()

    async def do(self, work: Callable[[State], T]) -> T:
        """Return what `work` returns; a change it makes is on disk by then, also when the caller is cancelled."""
        return await self._run(lambda: work(self._state))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
