"""Addresses and patterns."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.queue.address import Address, Home, covers, matches, parse
from appliance.queue.errors import BadAddress

HOME = Home("lan", "main")


def test_a_short_name_is_one_of_the_own_cluster() -> None:
    assert parse("flow.a.0", HOME) == Address("lan", "main", "flow.a.0")
    assert parse("lan2/east/flow.a.0", HOME) == Address("lan2", "east", "flow.a.0")
    assert str(parse("a", HOME)) == "lan/main/a"


def test_the_canonical_form_is_short_at_home_and_full_elsewhere() -> None:
    assert HOME.short("lan/main/flow._selftest.0") == "flow._selftest.0"
    assert HOME.short("lan/east/x") == "lan/east/x"
    assert HOME.short_pattern("lan/main/flow.*") == "flow.*"


@pytest.mark.parametrize(
    "text", ["", "a b", "a/b", "a//c", "/a/b", "LAN/main/a", "a..b", ".a", "a.", "a*", "x" * 201, "lan/main/a/b", "é"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse(text, HOME)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "x" * 300, "a\nb"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        HOME.short_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("flow.*", "flow.a.0", True),
        ("flow.*", "flow", False),
        ("*", "anything.at.all", True),
        ("*.0", "flow.a.0", True),
        ("flow.*.0", "flow.a.1", False),
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "lan2/east/a", False),
        ("*/*/a", "lan2/east/a", True),
        ("lan2/*/x*", "lan2/east/xy", True),
        ("a.b", "axb", False),
    ],
)
def test_a_star_is_any_run_of_characters_but_a_slash(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def stands_for(pattern: str, name: str) -> bool:
    """The definition: a star is nothing, or one more character that is no slash."""
    if not pattern:
        return not name
    if pattern[0] != "*":
        return name[:1] == pattern[0] and stands_for(pattern[1:], name[1:])
    return stands_for(pattern[1:], name) or (bool(name) and name[0] != "/" and stands_for(pattern, name[1:]))


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=8))
@example("*a/b*/a", "aa/b/a")
@example("*b", "ab/b")
def test_a_pattern_matches_what_its_definition_says(pattern: str, name: str) -> None:
    assert matches(pattern, name) is stands_for(pattern, name)


@pytest.mark.timeout(60)
def test_a_pattern_that_a_peer_made_up_cannot_hold_up_the_broker() -> None:
    assert not matches("*a" * 100 + "*b", "a" * 200)  # hours, where each star may be tried at each place
    assert matches("*a" * 100 + "*", "a" * 200)


PART = st.text("ab.*/", min_size=1, max_size=6)


@given(st.lists(PART, max_size=3).map(tuple), PART, st.lists(st.text("ab.", max_size=3), min_size=6, max_size=6))
def test_what_is_covered_never_reaches_further_than_the_rights(
    rights: tuple[str, ...], asked: str, fill: list[str]
) -> None:
    """Whatever the stars of a covered pattern stand for, the address matches one of the rights."""
    if not covers(rights, asked):
        return
    parts = asked.split("*")
    address = parts[0] + "".join(run + part for run, part in zip(fill, parts[1:], strict=False))
    assert any(matches(right, address) for right in rights)
