"""What is known of the members gets to Unbound: a file is replaced, then Unbound is told, again if it was away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.config import Machine
from appliance.contracts.member import Members
from appliance.dns import control
from appliance.dns.service import Follower
from appliance.dns.zones import zones_of
from appliance.errors import Unavailable
from tests.unit.dns.test_zones import members, order

ZONES = zones_of(Machine())
BOTH = [f"UBCT1 auth_zone_reload {ZONES.services}.", f"UBCT1 auth_zone_reload {ZONES.members}."]


@asynccontextmanager
async def unbound(socket: Path, answer: str = "ok\n") -> AsyncIterator[list[str]]:
    """The far end of the control socket; yields the commands it got."""
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readline()).decode().strip())
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, socket):
        yield heard


def follower(folder: Path) -> Follower:
    found = Follower(ZONES, folder, folder / "unbound.ctl")
    found.start()
    return found


def test_at_the_start_there_are_empty_zones_and_unbound_takes_them(tmp_path: Path) -> None:
    async def story() -> None:
        following = follower(tmp_path)
        async with unbound(tmp_path / "unbound.ctl") as heard:
            await following.apply()
            assert sorted(heard) == BOTH

    asyncio.run(story())
    assert "SOA" in (tmp_path / f"{ZONES.members}.zone").read_text(encoding="utf-8")


def test_zones_from_before_a_restart_stay_until_the_members_are_known(tmp_path: Path) -> None:
    kept = tmp_path / f"{ZONES.members}.zone"
    kept.write_text("from before", encoding="utf-8")
    follower(tmp_path)
    assert kept.read_text(encoding="utf-8") == "from before"


def test_only_what_changed_is_loaded_again(tmp_path: Path) -> None:
    async def story() -> None:
        following = follower(tmp_path)
        async with unbound(tmp_path / "unbound.ctl") as heard:
            following.members(members("arsrv-1", "arsrv-2"))
            await following.apply()
            heard.clear()
            await following.apply()
            assert heard == []
            following.order(order(("arsrv-2", "up"), ("arsrv-1", "up")))
            await following.apply()
            assert heard == BOTH[:1]

    asyncio.run(story())


def test_a_member_that_was_removed_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        following = follower(tmp_path)
        async with unbound(tmp_path / "unbound.ctl"):
            following.members(members("arsrv-1"))
            await following.apply()
            following.members(Members(revision=4, members=()))
            await following.apply()

    asyncio.run(story())
    assert "arsrv-1" not in (tmp_path / f"{ZONES.members}.zone").read_text(encoding="utf-8")


def test_while_unbound_is_away_the_change_waits_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        following = follower(tmp_path)
        following.members(members("arsrv-1"))
        with pytest.raises(Unavailable):
            await following.apply()
        async with unbound(tmp_path / "unbound.ctl") as heard:
            await following.apply()
            assert sorted(heard) == BOTH

    asyncio.run(story())


def test_a_refusal_is_told_in_unbounds_own_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with unbound(tmp_path / "ctl", "error no auth-zone x.\n"):
            with pytest.raises(control.UnboundRefused, match="no auth-zone x"):
                await control.command(tmp_path / "ctl", "auth_zone_reload x.")

    asyncio.run(story())


def test_a_silent_unbound_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    async def story() -> None:
        ended = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            ended.set()

        async with await asyncio.start_unix_server(serve, tmp_path / "ctl"):
            with pytest.raises(Unavailable, match="did not answer"):
                await control.command(tmp_path / "ctl", "stats", deadline_s=0.05)
            async with asyncio.timeout(10):
                await ended.wait()

    asyncio.run(story())
