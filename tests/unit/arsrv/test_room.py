"""The budget for arriving messages."""

import pytest

from appliance.arsrv.room import NoRoom, Room


def test_what_does_not_fit_is_refused_and_room_comes_back() -> None:
    room = Room(10)
    with room.claim() as first:
        first(6)
        with room.claim() as second:
            second(4)
            with pytest.raises(NoRoom):
                second(1)
            with pytest.raises(NoRoom):
                first(1)
        first(4)
    assert room.used == 0


def test_room_comes_back_after_a_refusal_too() -> None:
    room = Room(10)

    def overdraw() -> None:
        with room.claim() as take:
            take(8)
            take(8)

    with pytest.raises(NoRoom):
        overdraw()
    assert room.used == 0
