"""What a route has in hand: who goes next, who rests, and how fast it may go."""

from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.delivery import Delivery
from appliance.queue.pace import Pace
from appliance.queue.transit import MAX_BYTES, Crate, Transit

HOME = Home("lan", "a")
PLENTY = wire.MAX_ITEMS


class Nobody:
    """Settles nothing."""

    async def settle(self, delivery: Delivery, outcome: wire.Outcome, deadline_s: float) -> None:
        raise AssertionError

    def dropped(self, token: wire.Token) -> None:
        pass


def crate(number: int, address: str = "lan/b/one", body: bytes = b"", onward: wire.Onward | None = None) -> Crate:
    handed = wire.Handed((number, 1), str(number), "tester", address, 1, 100.0 + number, onward)
    return Crate(Delivery(handed, body, Nobody()), at=50.0)


def ids(crates: list[Crate]) -> list[str]:
    return [each.delivery.id for each in crates]


def test_each_address_keeps_its_order_and_none_is_always_first() -> None:
    transit = Transit()
    for number in range(3):
        transit.add(crate(number))
        transit.add(crate(10 + number, "lan/b/two"))
    assert ids(transit.next(50.0, 2, MAX_BYTES)) == ["0", "1"]
    assert ids(transit.next(50.0, 4, MAX_BYTES)) == ["10", "11", "12", "0"]
    assert transit.oldest_at() == 100.0
    gone = transit.next(50.0, PLENTY, MAX_BYTES)
    transit.remove(set(gone))
    assert (len(transit), transit.oldest_at(), transit.next(50.0, PLENTY, MAX_BYTES)) == (0, None, [])


def test_an_address_that_rests_holds_up_no_other() -> None:
    transit = Transit()
    transit.add(crate(0))
    transit.add(crate(1, "lan/b/two"))
    transit.rest("lan/b/one", 60.0)
    transit.rest("lan/b/one", 55.0)
    assert ids(transit.next(59.9, PLENTY, MAX_BYTES)) == ["1"]
    assert transit.rested_at() == 60.0
    assert sorted(ids(transit.next(60.0, PLENTY, MAX_BYTES))) == ["0", "1"]
    assert transit.rested_at() is None


def test_a_message_takes_what_the_other_side_takes_and_one_at_least() -> None:
    transit = Transit()
    for number in range(4):
        transit.add(crate(number, body=bytes(3000)))
    assert ids(transit.next(50.0, PLENTY, 8000)) == ["0", "1"]
    assert ids(transit.next(50.0, PLENTY, 100)) == ["0"]


def test_times_run_on_while_it_is_in_hand() -> None:
    onward = wire.Onward(("lan/x",), delay_s=10.0, expires_s=30.0, max_attempts=3, key="k")
    item = crate(7, onward=onward).item(HOME, now=54.0)
    assert item == wire.Item(
        "lan/b/one", "7", 6.0, None, 26.0, 3, "k", origin="lan/a/tester", way=("lan/x", "lan/a")
    )  # fmt: skip
    late = crate(7, onward=onward).item(HOME, now=100.0)
    assert (late.delay_s, late.expires_s) == (0.0, 0.0)


def test_a_pace_waits_for_messages_or_for_bytes_whichever_takes_longer() -> None:
    pace = Pace(10.0, 1000.0, now=0.0)
    assert (pace.most, pace.wait_s(0.0)) == (10, 0.0)
    pace.spend(5, 2000, now=0.0)
    assert pace.wait_s(0.0) == 2.0
    pace.spend(5, 0, now=4.0)
    assert (pace.wait_s(4.0), pace.wait_s(5.0)) == (0.5, 0.0)
    free = Pace(None, None, now=0.0)
    free.spend(1000, 10**9, now=0.0)
    assert (free.most, free.wait_s(0.0)) == (None, 0.0)
    assert Pace(0.1, None, now=0.0).most == 1
