"""MessagePack with something in it that nobody would write: no text, no number, too deep, larger than there is."""

from hypothesis import strategies as st

ODD = {
    "no text": b"\xa1\xff",
    "half a character": b"\xa2a\xc3",
    "a surrogate": b"\xa3\xed\xa0\x80",
    "a text of 4 GiB": b"\xdb\xff\xff\xff\xff",
    "4 GiB": b"\xc6\xff\xff\xff\xff",
    "an array of 2^32": b"\xdd\xff\xff\xff\xff",
    "an array of 2^24": b"\xdd\x01\x00\x00\x00",
    "a map of 2^32": b"\xdf\xff\xff\xff\xff",
    "an extension of 4 GiB": b"\xc9\xff\xff\xff\xff\x01",
    "no number": b"\xcb\x7f\xf8" + bytes(6),
    "infinity": b"\xcb\x7f\xf0" + bytes(6),
    "the largest integer": b"\xcf" + b"\xff" * 8,
    "the smallest integer": b"\xd3\x80" + bytes(7),
    "a time": b"\xd6\xff\x00\x00\x00\x01",
    "what is reserved": b"\xc1",
    "very deep": b"\x91" * 5000,
    "nothing": b"",
    "nil": b"\xc0",
}


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Return it with something odd in the place of a few of its bytes."""
    place = st.integers(0, len(data))
    odd = st.sampled_from(sorted(ODD.values())) | st.binary(max_size=3)
    return st.builds(lambda at, over, put: data[:at] + put + data[at + over :], place, st.integers(0, 12), odd)
