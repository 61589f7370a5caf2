"""Steps of a flow."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.arsrv.steps import StepFailed, run_step
from appliance.contracts.flow import Filter, Map, Remove, Set, Step

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=4)
OBJECTS = st.dictionaries(
    NAMES, st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)
)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (Set(path="a.b", value=1), {}, {"a": {"b": 1}}),
        (Set(path="a", value=None), {"a": 3, "c": 1}, {"a": None, "c": 1}),
        (Remove(path="a.b"), {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        (Remove(path="x.y.z"), {"a": 1}, {"a": 1}),
        (Filter(where="total > `10`"), {"total": 11}, {"total": 11}),
        (Filter(where="total > `10`"), {"total": 9}, None),
        (Filter(where="missing"), {"total": 9}, None),
        (Filter(where="total"), {"total": 0}, {"total": 0}),
        (Filter(where="lines"), {"lines": []}, None),
        (Map(to="{id: order.id, count: length(lines)}"), {"order": {"id": 7}, "lines": [1, 2]}, {"id": 7, "count": 2}),
        (Map(to="lines[].sku"), {"lines": [{"sku": "a"}, {"sku": "b"}]}, ["a", "b"]),
    ],
)
def test_a_step_makes_of_a_message_what_it_says(step: Step, before: object, after: object) -> None:
    result = run_step(step, json.dumps(before).encode())
    assert (None if result is None else json.loads(result)) == after


@pytest.mark.parametrize(
    ("step", "body", "because"),
    [
        (Set(path="a", value=1), b"no json", "not JSON"),
        (Set(path="a", value=1), b"\xff", "not JSON"),
        (Set(path="a", value=1), b'{"a": "\xff"}', "not JSON"),
        (Set(path="a", value=1), b"[1]", "'a'"),
        (Set(path="a.b", value=1), b'{"a": 1}', "'a.b'"),
        (Remove(path="a.b"), b'{"a": 1}', "'a.b'"),
        (Map(to="length(a)"), b'{"a": 1}', "length(a)"),
        (Map(to="sum(a)"), b'{"a": ["x"]}', "sum(a)"),
        (Map(to="nothing(a)"), b"{}", "nothing(a)"),
        (Filter(where="a"), b"[" * 100_000, "not JSON"),
    ],
)
def test_a_message_that_a_step_cannot_process_fails_with_the_reason(step: Step, body: bytes, because: str) -> None:
    with pytest.raises(StepFailed) as failure:
        run_step(step, body)
    assert because in failure.value.message


@given(OBJECTS, st.lists(NAMES, min_size=1, max_size=3), SCALARS)
def test_what_was_set_is_there_and_removing_it_takes_only_it(
    message: dict[str, object], path: list[str], value: str | int | bool | None
) -> None:
    dotted = ".".join(path)
    try:
        done = run_step(Set(path=dotted, value=value), json.dumps(message).encode())
    except StepFailed:
        return  # the path leads through something that is no object
    assert done is not None
    here = json.loads(done)
    for name in path:
        here = here[name]
    assert here == value
    removed = run_step(Remove(path=dotted), done)
    assert removed is not None
    assert run_step(Set(path=dotted, value=value), removed) is not None
    assert {key: val for key, val in json.loads(removed).items() if key != path[0]} == {
        key: val for key, val in message.items() if key != path[0]
    }


@given(
    st.binary(max_size=64), st.sampled_from([Set(path="a", value=1), Remove(path="a"), Filter(where="a"), Map(to="a")])
)
def test_no_message_brings_a_step_down_in_another_way(body: bytes, step: Step) -> None:
    try:
        run_step(step, body)
    except StepFailed:
        return
