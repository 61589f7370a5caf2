"""Set-up, login and sessions over a real database; the pairing code is judged by a stand-in for the supervisor."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.arclst.passwords import TooManyAttempts, WeakPassword
from appliance.arclst.users import IDLE_S, LONGEST_S, BadCredentials, NoSession, Users
from appliance.arclst.writer import Writer
from appliance.contracts.user import Login, PairingAttempt, SessionToken, Setup
from appliance.errors import Refused

PASSWORD = "correct horse"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Supervisor:
    """Judges pairing codes: each is good once."""

    def __init__(self) -> None:
        self.codes = {"AAAA", "BBBB"}

    async def pair(self, attempt: PairingAttempt) -> None:
        if attempt.code not in self.codes:
            raise Refused("This is not the code on the box's screen.")
        self.codes.remove(attempt.code)


Scenario = Callable[[Users, Supervisor, Clock], Awaitable[None]]


def play(tmp_path: Path, scenario: Scenario) -> None:
    async def run() -> None:
        clock, supervisor = Clock(), Supervisor()
        async with Writer(tmp_path / "cluster.sqlite", clock) as writer:
            await scenario(Users(writer, supervisor.pair, clock), supervisor, clock)

    asyncio.run(run())


def test_the_password_is_set_with_the_pairing_code_and_opens_a_session(tmp_path: Path) -> None:
    async def scenario(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        assert not (await users.setup_state()).done
        await users.setup(Setup(code="AAAA", password=PASSWORD))
        assert (await users.setup_state()).done
        token = await users.login(Login(user="admin", password=PASSWORD))
        assert (await users.session(token)).user == "admin"

    play(tmp_path, scenario)


def test_a_wrong_code_sets_nothing(tmp_path: Path) -> None:
    async def scenario(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        with pytest.raises(Refused):
            await users.setup(Setup(code="ZZZZ", password=PASSWORD))
        assert not (await users.setup_state()).done

    play(tmp_path, scenario)


def test_a_weak_password_does_not_use_up_the_code(tmp_path: Path) -> None:
    async def scenario(users: Users, supervisor: Supervisor, _clock: Clock) -> None:
        with pytest.raises(WeakPassword):
            await users.setup(Setup(code="AAAA", password="short"))
        assert "AAAA" in supervisor.codes

    play(tmp_path, scenario)


def test_a_fresh_code_replaces_a_lost_password_and_ends_its_sessions(tmp_path: Path) -> None:
    async def scenario(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        await users.setup(Setup(code="AAAA", password=PASSWORD))
        token = await users.login(Login(user="admin", password=PASSWORD))
        await users.setup(Setup(code="BBBB", password="another password"))
        with pytest.raises(NoSession):
            await users.session(token)
        with pytest.raises(BadCredentials):
            await users.login(Login(user="admin", password=PASSWORD))
        await users.login(Login(user="admin", password="another password"))

    play(tmp_path, scenario)


def test_a_wrong_password_and_an_unknown_user_are_told_apart_by_nothing(tmp_path: Path) -> None:
    async def scenario(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        await users.setup(Setup(code="AAAA", password=PASSWORD))
        problems = []
        for user in ("admin", "nobody"):
            with pytest.raises(BadCredentials) as refusal:
                await users.login(Login(user=user, password="wrong password"))
            problems.append(refusal.value.problem)
        assert problems[0] == problems[1]

    play(tmp_path, scenario)


def test_guessing_is_slowed_down_for_its_source_alone(tmp_path: Path) -> None:
    async def scenario(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        await users.setup(Setup(code="AAAA", password=PASSWORD))
        for _ in range(3):
            with pytest.raises(BadCredentials):
                await users.login(Login(user="admin", password="wrong password", source="192.0.2.66"))
        with pytest.raises(TooManyAttempts):
            await users.login(Login(user="admin", password=PASSWORD, source="192.0.2.66"))
        await users.login(Login(user="admin", password=PASSWORD, source="192.0.2.1"))

    play(tmp_path, scenario)


def test_a_guesser_gains_nothing_by_the_many_addresses_of_its_ipv6_network(tmp_path: Path) -> None:
    async def scenario(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        for source in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"):
            with pytest.raises(BadCredentials):
                await users.login(Login(user="admin", password="wrong password", source=source))
        with pytest.raises(TooManyAttempts):
            await users.login(Login(user="admin", password="wrong password", source="2001:db8::4"))
        with pytest.raises(BadCredentials):
            await users.login(Login(user="admin", password="wrong password", source="2001:db8:0:1::1"))

    play(tmp_path, scenario)


def test_a_session_ends_by_idleness_by_age_and_by_logout(tmp_path: Path) -> None:
    async def scenario(users: Users, _supervisor: Supervisor, clock: Clock) -> None:
        await users.setup(Setup(code="AAAA", password=PASSWORD))
        login = Login(user="admin", password=PASSWORD)

        idle = await users.login(login)
        assert (await users.session(idle)).expires_at == clock.now + IDLE_S
        clock.now += IDLE_S + 1
        with pytest.raises(NoSession):
            await users.session(idle)

        busy = await users.login(login)
        opened = clock.now
        while clock.now + IDLE_S / 2 < opened + LONGEST_S:
            clock.now += IDLE_S / 2
            assert (await users.session(busy)).expires_at == min(opened + LONGEST_S, clock.now + IDLE_S)
        clock.now = opened + LONGEST_S
        with pytest.raises(NoSession):
            await users.session(busy)

        left = await users.login(login)
        await users.logout(left)
        await users.logout(left)
        with pytest.raises(NoSession):
            await users.session(left)

    play(tmp_path, scenario)


def test_a_session_survives_a_restart_and_its_token_is_not_on_disk(tmp_path: Path) -> None:
    tokens: list[SessionToken] = []

    async def before(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        await users.setup(Setup(code="AAAA", password=PASSWORD))
        tokens.append(await users.login(Login(user="admin", password=PASSWORD)))

    async def after(users: Users, _supervisor: Supervisor, _clock: Clock) -> None:
        assert (await users.session(tokens[0])).user == "admin"

    play(tmp_path, before)
    play(tmp_path, after)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert tokens[0].token.encode() not in stored
    assert PASSWORD.encode() not in stored


def test_no_secret_shows_in_what_a_log_would_print() -> None:
    shown = repr(
        (Setup(code="AAAA", password=PASSWORD), Login(user="admin", password=PASSWORD), SessionToken(token="tttt"))
    )
    assert not any(secret in shown for secret in ("AAAA", PASSWORD, "tttt"))
