"""From declarations to the machine."""

import msgspec
import pytest

from appliance.component import STATE, Credential, UnitSpec
from appliance.config import Config, parse
from appliance.contracts.service import ServiceContext
from appliance.hwprofile import Budget
from appliance.supervisor.desired import Facts, desired
from appliance.supervisor.registry import declarations, specs
from appliance.supervisor.unit_text import service_text
from appliance.topology import File, Machine, Nic, Unit
from tests.unit.supervisor.fakes import EDGE, MAIL, Keys, small
from tests.unit.supervisor.fakes import specs as small_specs


def file_at(machine: Machine, path: str) -> File:
    """The file at a path."""
    return next(file for file in machine.files if file.path == path)


def unit_named(machine: Machine, name: str) -> Unit:
    """The unit of that name."""
    return next(unit for unit in machine.units if unit.name == name)


def test_every_process_gets_its_service_document() -> None:
    document = file_at(small().machine, "/run/alpha-ren/srv-2/service.json").content
    context = msgspec.json.decode(document, type=ServiceContext)
    assert context.instance == "srv-2"
    assert context.component == "srv"
    assert context.queue_endpoint == "tcp://10.156.16.2:7156"
    assert context.public_key == "key of srv-2"
    assert context.legs["cluster"].v4 == "10.156.17.2"


def test_another_key_of_the_broker_restarts_the_broker_and_nobody_else() -> None:
    before, after = (
        small(public_keys=Keys(queue=key, supervisor="s")).machine for key in ("the old key", "the new key")
    )
    changed = {file.path for file in after.files if file not in before.files}
    assert changed == {"/run/alpha-ren/queue/service.json"}
    assert {unit.name for unit in after.units if changed & set(unit.restart_on)} == {"alpha-ren-queue.service"}
    assert after.units == before.units


def test_who_is_known_on_other_machines_is_told_the_key_that_comes_next_and_no_other_is() -> None:
    route = "[[queue.routes]]\nto = 'far/east'\nendpoint = '192.0.2.7'\nserver_key = '" + "k" * 40 + "'\n"
    config = parse(route)
    machine = desired(config, specs(config), Facts(public_keys=Keys())).machine
    told = {
        context.instance: context.next_key
        for file in machine.files
        if file.path.endswith("/service.json")
        for context in [msgspec.json.decode(file.content, type=ServiceContext)]
    }
    assert {name: key for name, key in told.items() if key} == {"bridge": "key of bridge.next"}


def test_everybody_asks_the_instance_that_offers_names() -> None:
    content = file_at(small().machine, "/run/alpha-ren/mail/resolv.conf").content
    assert content.splitlines()[:2] == ["nameserver 10.156.16.5", "nameserver fd9c:156:0:1::5"]


def test_resolvers_of_the_lease_reach_the_files_and_the_configured_ones_come_first() -> None:
    path = "/run/alpha-ren/names/names.conf"
    assert file_at(small(resolvers=("192.0.2.53",)).machine, path).content == "192.0.2.53\n"
    config = parse('[network.uplink]\nresolvers = ["192.0.2.1"]\n')
    found = desired(config, small_specs(), Facts(public_keys=Keys(), resolvers=("192.0.2.53",)))
    assert file_at(found.machine, path).content == "192.0.2.1\n"


def test_only_who_has_rights_and_the_supervisor_are_let_into_the_queue() -> None:
    names = {access.name: access.public_key for access in small().site.access}
    assert names == {
        "mail": "key of mail",
        "srv-1": "key of srv-1",
        "srv-2": "key of srv-2",
        "supervisor": "key of supervisor",
    }


def test_without_a_card_there_is_no_uplink_and_with_one_it_moves_into_the_gateway() -> None:
    assert small().machine.nics == ()
    assert small(uplink_nics=("enp1s0",)).machine.nics == (Nic(namespace="edge", name="uplink", match="enp1s0"),)


def test_a_static_uplink_has_its_address_and_its_way_out() -> None:
    config = parse('[network.uplink]\nmode = "static"\naddress = "192.0.2.7/24"\ngateway = "192.0.2.1"\n')
    machine = desired(config, small_specs(), Facts(public_keys=Keys(), uplink_nics=("enp1s0",))).machine
    assert machine.nics[0].addresses == ("192.0.2.7/24",)
    assert ("edge", "default", "192.0.2.1") in {
        (route.namespace, route.destination, route.gateway) for route in machine.routes
    }


def test_an_uplink_may_have_a_lease_in_ipv4_and_a_static_address_in_ipv6() -> None:
    config = parse('[network.uplink]\naddress6 = "2001:db8::7/64"\ngateway6 = "fe80::1"\n')
    machine = desired(config, small_specs(), Facts(public_keys=Keys(), uplink_nics=("enp1s0",))).machine
    [nic] = machine.nics
    assert (nic.addresses, nic.leased) == (("2001:db8::7/64",), (4,))
    [way] = [route for route in machine.routes if route.namespace == "edge"]
    # The same link-local address may be on every network that there is.
    assert (way.destination, way.gateway, way.device) == ("default6", "fe80::1", "uplink")


def test_a_unit_runs_in_its_namespace_with_its_own_names_and_its_limits() -> None:
    machine = small().machine
    text = unit_named(machine, "alpha-ren-srv-1.service").text
    for line in (
        "NetworkNamespacePath=/run/netns/srv-1",
        "Slice=alpha-ren-srv-1.slice",
        "LimitNOFILE=1024",
        "DynamicUser=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "BindReadOnlyPaths=/run/alpha-ren/srv-1/resolv.conf:/etc/resolv.conf",
        f"LoadCredential=curve-secret:{STATE}/keys/srv-1.secret",
        f"LoadCredential=queue-keys:{STATE}/keys/queue-keys",
    ):
        assert line in text.splitlines()
    assert "MemoryMax=256M" in unit_named(machine, "alpha-ren-srv-1.slice").text.splitlines()


def test_a_daemon_that_is_not_ours_does_not_see_the_key_of_the_queue() -> None:
    daemon = UnitSpec(
        exec=("/usr/sbin/daemon", "two words"),
        user="daemon",
        capabilities=("CAP_NET_BIND_SERVICE",),
        credentials=(Credential(name="cert", path="/x"),),
        writable=("/run/alpha-ren/mail/control", "/var/lib/daemon"),
    )
    lines = service_text("mail", MAIL, daemon).splitlines()
    assert [line for line in lines if line.startswith("LoadCredential=")] == ["LoadCredential=cert:/x"]
    assert 'ExecStart=/usr/sbin/daemon "two words"' in lines
    assert "User=daemon" in lines
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in lines
    assert "RuntimeDirectory=alpha-ren/mail/control" in lines
    assert "ReadWritePaths=/var/lib/daemon" in lines


def test_the_directory_a_unit_may_write_is_sticky() -> None:
    unit = UnitSpec(exec=("/bin/x",), writable=("/run/alpha-ren/edge", "/var/lib/x"))
    edge = msgspec.structs.replace(EDGE, units=(unit,))
    declared = tuple(
        msgspec.structs.replace(spec, instances=(edge,)) if spec.name == "edge" else spec for spec in small_specs()
    )
    modes = {
        each.path: each.mode for each in desired(Config(), declared, Facts(public_keys=Keys())).machine.directories
    }
    assert modes["/run/alpha-ren/edge"] == 0o1777
    assert modes["/var/lib/x"] == 0o755
    assert modes["/run/alpha-ren/mail"] == 0o755


@pytest.mark.parametrize("servers", [1, 40])
def test_the_firmwares_own_components_fit_together(servers: int) -> None:
    config = parse(f"[arsrv]\ncount = {servers}\n")
    machine = desired(config, specs(config), Facts(public_keys=Keys(), uplink_nics=("enp1s0",))).machine
    assert len({unit.name for unit in machine.units}) == len(machine.units)
    assert sum(unit.component == "arsrv" and unit.name.endswith(".service") for unit in machine.units) == servers
    assert {"ardpx", "queue"} <= set(declarations())


def test_what_computes_and_what_waits_for_the_network_get_their_own_cpus() -> None:
    budget = Budget(cpus=4, memory_mb=4096, network_cpus="0", arsrv_cpus="1-3", arsrv_memory_mb=512)
    machine = desired(Config(), specs(Config()), Facts(public_keys=Keys(), budget=budget)).machine
    server = unit_named(machine, "alpha-ren-arsrv-1.slice").text.splitlines()
    queue = unit_named(machine, "alpha-ren-queue.slice").text.splitlines()
    assert "AllowedCPUs=1-3" in server
    assert "MemoryMax=512M" in server
    assert "AllowedCPUs=0" in queue
    assert "MemoryMax=512M" in queue
