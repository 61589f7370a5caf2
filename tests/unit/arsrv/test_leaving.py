"""A server that stops: the proxy hears of it first, and a message that comes until then is taken."""

import asyncio
from pathlib import Path

import aiohttp

from tests.cluster import until
from tests.unit.arsrv.test_service import ONE, TWO, Bench, Target, play


async def health(bench: Bench) -> int:
    """What the server says of itself, 0 where nobody listens any more."""
    try:
        async with bench.http.get(f"http://127.0.0.1:{bench.cluster.ports[ONE]}/health") as response:
            return response.status
    except aiohttp.ClientConnectorError:
        return 0


def test_a_server_that_is_about_to_stop_says_so_and_takes_what_comes_until_it_is_believed(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async def leaving() -> bool | None:
            return True if await health(bench) == 503 else None

        async with Target() as target:
            await bench.put(target.url)
            assert await health(bench) == 200
            async with asyncio.TaskGroup() as group:
                group.create_task(bench.cluster.stop(ONE))
                await until(leaving)
                async with bench.http.post(bench.cluster.hook(ONE, "orders"), data=b"late") as response:
                    assert response.status == 202
                    assert response.headers["Connection"] == "close", "nobody is to reuse what is about to go"
                assert [await health(bench) for _ in range(2)] == [503, 503]
            assert await health(bench) == 0
            await bench.cluster.start(TWO)
            await target.arrived.wait()
            assert [each.body for each in target.received] == [b"late"]

    play(tmp_path, scenario, ONE)

