"""The picture the console shows, computed from what the queue says."""

from appliance.arwadm.picture import FlowTraffic, flow_traffic, is_own
from appliance.contracts.traffic import Depth


def test_a_flow_s_traffic_sums_its_stages_and_counts_the_last_as_delivered() -> None:
    depths = (
        Depth(address="flow.orders.0", ready=3, leased=1, done_total=40),
        Depth(address="flow.orders.1", ready=2, leased=2, dead=1, done_total=30),
        Depth(address="flow.orders.10", dead=4, done_total=20),
    )
    assert flow_traffic(depths) == (FlowTraffic(name="orders", waiting=5, in_hand=3, delivered=20, dead=5),)


def test_addresses_that_are_no_flow_of_a_person_are_left_out() -> None:
    depths = (
        Depth(address="notice.mail", ready=1),
        Depth(address="flow._selftest.0", done_total=9),
        Depth(address="flow.odd", done_total=9),
        Depth(address="far/east/flow.orders.0", ready=9),
    )
    assert flow_traffic(depths) == ()
    assert is_own("flow._selftest.0")
    assert not is_own("flow.orders.0")


def test_a_flow_s_name_may_hold_what_names_may_hold() -> None:
    depths = (Depth(address="flow.pick-up_2.0", done_total=1),)
    assert flow_traffic(depths) == (FlowTraffic(name="pick-up_2", delivered=1),)
