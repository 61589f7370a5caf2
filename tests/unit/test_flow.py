"""Flows as data: what is accepted, what is refused, and how a stage is addressed."""

import pytest

from appliance.contracts.flow import Filter, InvalidFlow, Set, parse_flow, stage_address


def test_a_flow_is_read_into_types() -> None:
    flow = parse_flow(
        b"""{"name": "orders", "trigger": {"kind": "webhook", "max_bytes": 1000},
             "steps": [{"kind": "filter", "where": "total > `0`"}, {"kind": "set", "path": "seen", "value": true}],
             "deliver": {"kind": "http", "url": "https://erp.example.org/orders", "retry": {"attempts": 3}}}"""
    )
    assert flow.steps == (Filter(where="total > `0`"), Set(path="seen", value=True))
    assert flow.stages == 3
    assert flow.deliver.retry.attempts == 3
    assert stage_address(flow.name, 2) == "flow.orders.2"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (b"{}", "name"),
        (b"[]", "object"),
        (b"no json", ""),
        (b'{"name": "a b", "deliver": {"kind": "http", "url": "http://x/"}}', "$.name"),
        (b'{"name": "a", "colour": 1, "deliver": {"kind": "http", "url": "http://x/"}}', "colour"),
        (b'{"name": "a", "deliver": {"kind": "pigeon", "url": "http://x/"}}', "pigeon"),
        (b'{"name": "a", "deliver": {"kind": "http", "url": "ftp://x/"}}', "$.deliver.url"),
        (b'{"name": "a", "deliver": {"kind": "http", "url": "http://x:99999/"}}', "$.deliver.url"),
        (
            b'{"name": "a", "deliver": {"kind": "http", "url": "http://x/", "retry": {"attempts": 0}}}',
            "$.deliver.retry",
        ),
        (
            b'{"name": "a", "steps": [{"kind": "set", "path": ""}], "deliver": {"kind": "http", "url": "http://x/"}}',
            "$.steps",
        ),
        (b'{"name": "a", "deliver": {"kind": "http", "url": "http://u:p@x/"}}', "$.deliver.url"),
        (
            b'{"name": "a", "steps": [{"kind": "set", "path": "a..b"}], "deliver": {"kind": "http", "url": "http://x/"}}',
            "$.steps",
        ),
        (
            b'{"name": "a", "steps": [{"kind": "map", "to": "["}], "deliver": {"kind": "http", "url": "http://x/"}}',
            "$.steps[0].to",
        ),
        (
            b'{"name": "a", "steps": [{"kind": "filter", "where": "a ="}], "deliver": {"kind": "http", "url": "http://x/"}}',
            "$.steps[0].where",
        ),
        (b'{"name": "a", "version": 2, "deliver": {"kind": "http", "url": "http://x/"}}', "$.version"),
    ],
)
def test_a_flow_that_does_not_validate_is_refused_and_the_field_is_named(document: bytes, field: str) -> None:
    with pytest.raises(InvalidFlow) as refusal:
        parse_flow(document)
    assert refusal.value.problem.code == "invalid-flow"
    assert field in refusal.value.problem.message
