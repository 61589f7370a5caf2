"""The machine's configuration: strict, versioned, refused with a code, a sentence and a hint."""

from pathlib import Path

import pytest

from appliance.config import Config, InvalidConfig, QueueLimit, load, parse

KEY = "k" * 40
ROUTE = "[[queue.routes]]\nto = '{to}'\nendpoint = '{endpoint}'\nserver_key = '" + KEY + "'\n"
PEER = "[[queue.peers]]\nname = '{name}'\npublic_key = '" + KEY + "'\npublish = ['{publish}']\n"
OTHER_KEY = "l" * 40
OTHER_PEER = f"[[queue.peers]]\nname = 'far/west'\npublic_key = '{OTHER_KEY}'\npublish = ['in.*']\n"


def test_an_empty_document_is_a_single_box_on_a_dhcp_uplink() -> None:
    config = parse("")
    assert config == Config()
    assert config.network.uplink.mode == "dhcp"
    assert config.arsrv.count == 2


def test_a_whole_document_is_read_into_types() -> None:
    config = parse(
        """
        version = 1
        [machine]
        name = "ren-1"
        lan = "plant"
        cluster = "north"
        [network.uplink]
        mode = "static"
        address = "192.0.2.10/24"
        gateway = "192.0.2.1"
        resolvers = ["192.0.2.53", "2001:db8::53"]
        [arsrv]
        count = 4
        egress_ports = [443, 8080]
        [mail]
        smarthost = "mail.example.org:587"
        sender = "box@example.org"
        recipients = ["ops@example.org"]
        [[vpn.peers]]
        name = "laptop"
        public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
        slot = 2
        [[queue.limits]]
        pattern = "flow.*"
        max_depth = 1000
        rate = 0.5
        [[queue.routes]]
        to = "far/east"
        endpoint = "[2001:db8::7]:7157"
        server_key = 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7'
        bytes_per_s = 1e6
        [[queue.peers]]
        name = "far/east"
        public_key = 'Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID'
        next_key = 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7'
        publish = ["orders.*", "far/west/*"]
        """
    )
    assert config.machine.cluster == "north"
    assert config.network.uplink.resolvers == ("192.0.2.53", "2001:db8::53")
    assert config.arsrv.egress_ports == (443, 8080)
    assert config.vpn.peers[0].name == "laptop"
    assert config.queue.routes[0].entrance == ("[2001:db8::7]", 7157)
    assert config.queue.peers[0].publish == ("orders.*", "far/west/*")
    assert config.queue.peers[0].keys == (config.queue.peers[0].public_key, config.queue.routes[0].server_key)
    assert config.queue.limits == (QueueLimit(pattern="flow.*", max_depth=1000, rate=0.5),)


STATIC4 = "[network.uplink]\nmode = 'static'\naddress = '192.0.2.7/24'\n"
ONLY6 = "address = '2001:db8::7/64'\ngateway = '2001:db8::1'\n"
STATIC6 = "address6 = '2001:DB8::7/64'\ngateway6 = 'fe80::1'\n"


@pytest.mark.parametrize(
    ("text", "leased", "addresses", "gateways"),
    [
        ("", (4, 6), (), ()),
        ("mode6 = 'off'", (4,), (), ()),
        (STATIC6, (4,), ("2001:db8::7/64",), ("fe80::1",)),
        (STATIC4 + "gateway = '192.0.2.1'", (), ("192.0.2.7/24",), ("192.0.2.1",)),
        (STATIC4 + "gateway = '192.0.2.1'\nmode6 = 'auto'", (6,), ("192.0.2.7/24",), ("192.0.2.1",)),
        (
            STATIC4 + "gateway = '192.0.2.1'\n" + STATIC6,
            (),
            ("192.0.2.7/24", "2001:db8::7/64"),
            ("192.0.2.1", "fe80::1"),
        ),
        ("mode = 'static'\n" + STATIC6, (), ("2001:db8::7/64",), ("fe80::1",)),
        ("mode = 'static'\n" + ONLY6, (), ("2001:db8::7/64",), ("2001:db8::1",)),
    ],
)
def test_each_ip_version_of_the_uplink_is_leased_static_or_off(
    text: str, leased: tuple[int, ...], addresses: tuple[str, ...], gateways: tuple[str, ...]
) -> None:
    uplink = parse(text if text.startswith("[") else f"[network.uplink]\n{text}").network.uplink
    assert (uplink.leased, uplink.addresses, uplink.gateways) == (leased, addresses, gateways)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("colour = 'red'", "colour"),
        ("[machine]\nnmae = 'x'", "nmae"),
        ("[machine]\nname = 'Not A Label'", "$.machine.name"),
        ("[arsrv]\ncount = 0", "$.arsrv.count"),
        ("[arsrv]\negress_ports = [70000]", "$.arsrv.egress_ports"),
        ("[network]\ninner4 = '10.0.0.0/8'", "$.network.inner4"),
        ("[network]\ninner4 = '8.8.0.0/16'", "$.network.inner4"),
        ("[network]\ninner6 = '2001:db8::/48'", "$.network.inner6"),
        ("[network.uplink]\nmode = 'static'", "$.network.uplink"),
        ("[network.uplink]\nmode = 'static'\naddress = '192.0.2.1/24'\ngateway = '198.51.100.1'", "$.network.uplink"),
        ("[network.uplink]\naddress = '192.0.2.1/24'", "$.network.uplink"),
        ("[network.uplink]\nresolvers = ['nobody']", "$.network.uplink"),
        ("[network.uplink]\nvlan = 4095", "$.network.uplink.vlan"),
        ("[network.uplink]\nbond = 'round-robin'", "$.network.uplink.bond"),
        (STATIC4 + "gateway = '192.0.2.7'", "itself"),
        (STATIC4 + "gateway = 'fe80::1'", "$.network.uplink"),
        ("[network.uplink]\nmode6 = 'dhcp'", "$.network.uplink.mode6"),
        ("[network.uplink]\nmode6 = 'static'", "$.network.uplink"),
        ("[network.uplink]\nmode6 = 'off'\n" + STATIC6, "$.network.uplink"),
        ("[network.uplink]\nmode6 = 'auto'\n" + STATIC6, "$.network.uplink"),
        ("[network.uplink]\naddress6 = '2001:db8::7/64'", "$.network.uplink"),
        ("[network.uplink]\naddress6 = '192.0.2.7/24'\ngateway6 = '192.0.2.1'", "$.network.uplink"),
        ("[network.uplink]\nmode = 'static'\n" + ONLY6 + STATIC6, "`mode6`"),
        ("[mail]\nsmarthost = 'a b'", "$.mail.smarthost"),
        ("[mail]\nrecipients = ['nobody']", "$.mail"),
        ("version = 2", "$.version"),
        ("[[vpn.peers]]\nname = 'a'\npublic_key = 'short'\nslot = 2", "$.vpn.peers"),
        ("[queue]\ndepth = 1", "depth"),
        (ROUTE.format(to="lan/main", endpoint="192.0.2.1"), "$.queue.routes"),
        (ROUTE.format(to="far/east", endpoint="192.0.2.1") * 2, "$.queue.routes"),
        (ROUTE.format(to="far", endpoint="192.0.2.1"), "$.queue.routes[0].to"),
        (ROUTE.format(to="far/east", endpoint="192.0.2.1:70000"), "$.queue.routes"),
        (ROUTE.format(to="far/east", endpoint="[1::2::3]"), "$.queue.routes"),
        (ROUTE.format(to="far/east", endpoint="tcp://192.0.2.1"), "$.queue.routes[0].endpoint"),
        (PEER.format(name="lan/main", publish="in.*"), "$.queue.peers"),
        (PEER.format(name="far/east", publish="in.*") + PEER.format(name="far/west", publish="in.*"), "$.queue.peers"),
        (PEER.format(name="far/east", publish="in.*") + "next_key = 'short'", "$.queue.peers[0].next_key"),
        (PEER.format(name="far/east", publish="in *"), "$.queue.peers[0].publish"),
        ("[[queue.peers]]\nname = 'far/east'\npublic_key = 'short'\npublish = ['*']", "$.queue.peers[0].public_key"),
        ("[[queue.limits]]\nmax_depth = 1", "pattern"),
        ("[[queue.limits]]\npattern = 'a b'", "$.queue.limits[0].pattern"),
        ("[[queue.limits]]\npattern = '*'\nrate = 0", "$.queue.limits[0].rate"),
        ("this is no TOML", ""),
    ],
)
def test_what_does_not_validate_is_refused_and_the_field_is_named(text: str, field: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        parse(text)
    problem = refusal.value.problem
    assert problem.code == "invalid-config"
    assert field in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    "text",
    [
        PEER.format(name="far/east", publish="in.*") + f"next_key = '{KEY}'",
        OTHER_PEER + PEER.format(name="far/east", publish="in.*") + f"next_key = '{OTHER_KEY}'",
        OTHER_PEER + f"next_key = '{KEY}'\n" + PEER.format(name="far/east", publish="in.*"),
    ],
)
def test_no_key_of_a_peer_is_listed_twice(text: str) -> None:
    with pytest.raises(InvalidConfig, match="A public key is listed twice"):
        parse(text)


def test_two_vpn_peers_with_one_slot_are_refused() -> None:
    peer = "[[vpn.peers]]\nname='{}'\npublic_key='xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg='\nslot=2\n"
    with pytest.raises(InvalidConfig, match="share"):
        parse(peer.format("a") + peer.format("b"))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load(tmp_path / "binary.toml")


def test_a_lans_card_is_used_where_its_section_is_there_and_asks_for_its_addresses() -> None:
    network = parse('[network.management]\n[network.cluster]\nmode = "static"\naddress = "192.0.2.10/24"\n').network
    assert {role: side.leased for role, side in network.sides.items()} == {"cluster": (), "management": (4, 6)}
    assert network.sides["cluster"].addresses == ("192.0.2.10/24",)
    assert Config().network.sides == {}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('gateway = "192.0.2.1"', "unknown field `gateway` - at `\\$.network.management`"),
        ('vlan = 7', "unknown field `vlan`"),
        ('address = "192.0.2.10/24"', "With DHCP a card takes no address"),
        ('mode = "static"', "The card's address is not valid"),
        ('mode = "static"\naddress = "2001:db8::1/64"', "The card's address is not valid"),
        ('mode6 = "auto"\naddress6 = "2001:db8::1/64"', "`mode6` auto takes no address6"),
        ('mode = "static"\naddress = "10.156.3.1/24"', "is part of the inside's 10.156.0.0/16"),
        ('mode = "static"\naddress = "192.0.2.10/24"', "is part of the uplink's 192.0.2.0/25"),
        ('address6 = "2001:db8::2/64"', "is part of the cluster's 2001:db8::/48"),
    ],
)
def test_a_lan_that_cannot_be_is_refused(section: str, said: str) -> None:
    uplink = '[network.uplink]\nmode = "static"\naddress = "192.0.2.7/25"\ngateway = "192.0.2.1"\n'
    cluster = '[network.cluster]\naddress6 = "2001:db8::1/48"\n'
    with pytest.raises(InvalidConfig, match=said):
        parse(f"{uplink}{cluster}[network.management]\n{section}\n")
