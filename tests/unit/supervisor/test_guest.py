"""An instance in a virtual machine: what its keeper is told, what goes into the guest, and what stays as it was."""

import msgspec
import pytest

from appliance.component import BadDeclaration, Credential, Forward, Instance, RenderedFile, UnitSpec
from appliance.config import parse
from appliance.contracts.service import Leg, ServiceContext
from appliance.host.guest import EMULATOR_MB, Guest
from appliance.hwprofile import Budget
from appliance.supervisor.desired import Facts, desired
from appliance.supervisor.guest import Ground, expect_fit
from appliance.supervisor.registry import specs
from appliance.topology import Machine, Unit
from tests.unit.supervisor.fakes import UNIT, Keys, server, small
from tests.unit.supervisor.fakes import specs as small_specs

BOTH = small(guests=frozenset({"srv-1"})).machine
PLAIN = small().machine
RUN = "/run/alpha-ren/srv-1"


def content(machine: Machine, path: str) -> str:
    """The content of the file at a path."""
    return next(file.content for file in machine.files if file.path == path)


def unit_named(machine: Machine, name: str) -> Unit:
    """The unit of that name."""
    return next(unit for unit in machine.units if unit.name == name)


def document(machine: Machine) -> Guest:
    """What the keeper of srv-1 reads."""
    return msgspec.json.decode(content(machine, f"{RUN}/guest.json"), type=Guest)


def test_the_others_see_no_difference() -> None:
    mine = {"srv-1"}
    assert BOTH.flows == PLAIN.flows
    assert BOTH.veths == PLAIN.veths
    assert BOTH.routes == PLAIN.routes
    assert [each for each in BOTH.rulesets if each.namespace not in mine] == [
        each for each in PLAIN.rulesets if each.namespace not in mine
    ]
    assert [each for each in BOTH.units if each.instance not in mine] == [
        each for each in PLAIN.units if each.instance not in mine
    ]


def test_its_namespace_forwards_and_has_a_cable() -> None:
    assert [tap.key for tap in BOTH.taps] == ["srv-1/vm"]
    assert {each.name: each.forwarding for each in BOTH.namespaces if each.name.startswith("srv")} == {
        "srv-1": True,
        "srv-2": False,
    }


def test_the_service_document_names_the_addresses_that_others_use_and_those_to_listen_on() -> None:
    context = msgspec.json.decode(content(BOTH, f"{RUN}/service.json"), type=ServiceContext)
    assert context.legs["cluster"] == Leg(v4="10.156.17.1", v6="fd9c:156:0:1::101")
    assert context.own("cluster") == Leg(v4="10.156.48.2", v6="fd9c:156:0:3::2")
    plain = msgspec.json.decode(content(PLAIN, f"{RUN}/service.json"), type=ServiceContext)
    assert plain.own("cluster") == plain.legs["cluster"]


def test_the_guests_network_is_the_far_end_of_the_cable_and_its_way_out_the_near_one() -> None:
    assert content(BOTH, f"{RUN}/guest.network").splitlines() == [
        "link set lo up",
        "link set eth0 up",
        "addr add 10.156.48.2/30 dev eth0",
        "addr add fd9c:156:0:3::2/126 dev eth0 nodad",
        "route add default via 10.156.48.1",
        "route add default via fd9c:156:0:3::1",
    ]
    assert BOTH.taps[0].addresses == ("10.156.48.1/30", "fd9c:156:0:3::1/126")


def test_in_place_of_its_own_process_the_instance_has_a_keeper() -> None:
    names = {unit.name for unit in BOTH.units if unit.instance == "srv-1"}
    assert names == {"alpha-ren-srv-1.slice", "alpha-ren-srv-1-vm.service"}
    keeper = unit_named(BOTH, "alpha-ren-srv-1-vm.service")
    lines = keeper.text.splitlines()
    for line in (
        f"ExecStart=/usr/bin/python3 -m appliance.host.keeper {RUN}/guest.json",
        "NetworkNamespacePath=/run/netns/srv-1",
        "KillMode=mixed",
        "DynamicUser=yes",
        "SupplementaryGroups=alpha-ren-guest",
        "DevicePolicy=closed",
        "DeviceAllow=/dev/net/tun rw",
        "RuntimeDirectory=alpha-ren/srv-1/vm",
        "LoadCredential=curve-secret:/var/lib/alpha-ren/keys/srv-1.secret",
    ):
        assert line in lines
    assert set(keeper.restart_on) == {
        f"{RUN}/{name}" for name in ("service.json", "resolv.conf", "guest.json", "guest.service", "guest.network")
    }


def test_the_guests_own_unit_is_that_of_the_namespace_without_what_the_machine_is_for() -> None:
    text = content(BOTH, f"{RUN}/guest.service")
    inside, outside = text.splitlines(), unit_named(PLAIN, "alpha-ren-srv-1.service").text.splitlines()
    gone = [line for line in outside if line not in inside]
    assert {line.partition("=")[0] for line in gone} <= {
        "Slice", "NetworkNamespacePath", "BindReadOnlyPaths", "Environment", "LoadCredential",
    }  # fmt: skip
    for line in (
        "LoadCredential=curve-secret",
        "LoadCredential=queue-keys",
        "LoadCredential=service.json",
        "Environment=ALPHA_REN_SERVICE=%d/service.json LANG=C.UTF-8 PYTHONUNBUFFERED=1",
    ):
        assert line in inside


def test_every_credential_that_the_guests_unit_loads_is_handed_over() -> None:
    loaded = {
        line.partition("=")[2]
        for line in content(BOTH, f"{RUN}/guest.service").splitlines()
        if line.startswith("LoadCredential=")
    }
    given = document(BOTH).credentials
    assert loaded <= set(given)
    assert given["alpha-ren.unit"] == f"{RUN}/guest.service"
    # Secrets are files of the keeper's own credentials, everything else a file that anybody may read.
    assert given["curve-secret"] == "curve-secret"
    assert given["service.json"] == f"{RUN}/service.json"


def test_the_guest_has_the_memory_of_its_instance_and_the_emulator_its_own() -> None:
    budget = Budget(cpus=4, memory_mb=4096, network_cpus="0", arsrv_cpus="1-3", arsrv_memory_mb=512)
    config = parse('[arsrv]\nisolation = "vm"\n')
    ground = Ground(accelerator="kvm", disks=("/dev/mapper/usr",))
    facts = Facts(public_keys=Keys(), guests=frozenset({"arsrv-1"}), budget=budget, ground=ground)
    machine = desired(config, specs(config), facts).machine
    guest = msgspec.json.decode(content(machine, "/run/alpha-ren/arsrv-1/guest.json"), type=Guest)
    assert (guest.memory_mb, guest.cpus, guest.accelerator) == (512, 3, "kvm")
    limits = unit_named(machine, "alpha-ren-arsrv-1.slice").text.splitlines()
    assert f"MemoryMax={512 + EMULATOR_MB}M" in limits
    assert "MemoryMax=512M" in unit_named(machine, "alpha-ren-arsrv-2.slice").text.splitlines()
    keeper = unit_named(machine, "alpha-ren-arsrv-1-vm.service").text.splitlines()
    assert "OpenFile=/dev/mapper/usr:disk0:read-only" in keeper
    # It is spoken to, so it has to be open for writing.
    assert "OpenFile=/dev/kvm:kvm" in keeper
    for allowed in ("/dev/net/tun rw", "/dev/mapper/usr r", "/dev/kvm rw"):
        assert f"DeviceAllow={allowed}" in keeper


@pytest.mark.parametrize(
    "changes",
    [
        {"legs": ("cluster", "dmz")},
        {"units": (UNIT, UnitSpec(exec=UNIT.exec, name="more"))},
        {"units": (UnitSpec(exec=("/usr/sbin/daemon",)),)},
        {"units": (UnitSpec(exec=UNIT.exec, state_directory=True),)},
        {"units": (UnitSpec(exec=UNIT.exec, credentials=(Credential(name="x" * 29, path="/x"),)),)},
        {"forwards": (Forward(port="hooks", number=80),)},
    ],
)
def test_what_no_guest_is_given_cannot_be_declared_for_one(changes: dict[str, object]) -> None:
    instance: Instance = msgspec.structs.replace(server(1), **changes)
    with pytest.raises(BadDeclaration):
        expect_fit(instance, ())


def test_files_of_its_own_cannot_be_declared_for_a_guest() -> None:
    expect_fit(server(1), ())
    with pytest.raises(BadDeclaration):
        expect_fit(server(1), (RenderedFile(name="x.conf", content=""),))


def test_a_units_own_credentials_reach_the_guest() -> None:
    unit = msgspec.structs.replace(UNIT, credentials=(Credential(name="token", path="/var/lib/alpha-ren/token"),))
    declared = msgspec.structs.replace(server(1), units=(unit,))
    everything = tuple(
        msgspec.structs.replace(spec, instances=(declared,)) if spec.name == "srv" else spec for spec in small_specs()
    )
    machine = desired(parse(""), everything, Facts(public_keys=Keys(), guests=frozenset({"srv-1"}))).machine
    assert document(machine).credentials["token"] == "token"
    assert "LoadCredential=token" in content(machine, f"{RUN}/guest.service").splitlines()
    keeper = unit_named(machine, "alpha-ren-srv-1-vm.service").text.splitlines()
    assert "LoadCredential=token:/var/lib/alpha-ren/token" in keeper
