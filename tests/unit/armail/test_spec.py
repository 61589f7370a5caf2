"""Mail goes to the smarthost and nowhere else; without one it stays in the queue."""

import pytest

from appliance.armail.spec import NOT_CONFIGURED, Settings, declare
from appliance.config import Config, Mail
from appliance.topology import ANYWHERE
from tests.unit.placement import rendered


def config(smarthost: str) -> Config:
    return Config(mail=Mail(smarthost=smarthost, recipients=("ops@example.org",)))


@pytest.mark.parametrize(
    ("smarthost", "relayhost", "to", "port"),
    [
        ("mail.example.org", "[mail.example.org]:25", ANYWHERE, 25),
        ("mail.example.org:587", "[mail.example.org]:587", ANYWHERE, 587),
        ("192.0.2.25:2525", "[192.0.2.25]:2525", "192.0.2.25/32", 2525),
        ("[2001:db8::25]", "[ipv6:2001:db8::25]:25", "2001:db8::25/128", 25),
        ("[2001:db8::25]:587", "[ipv6:2001:db8::25]:587", "2001:db8::25/128", 587),
    ],
)
def test_the_smarthost_is_the_only_way_out(smarthost: str, relayhost: str, to: str, port: int) -> None:
    [instance] = declare(config(smarthost)).instances
    [egress] = instance.egress
    assert (egress.to, egress.port) == (to, port)
    assert f"\nrelayhost = {relayhost}\n" in rendered("armail", config(smarthost))["main.cf"].content


@pytest.mark.parametrize("mail", [Mail(), Mail(smarthost="mail.example.org"), Mail(recipients=("ops@example.org",))])
def test_unconfigured_mail_has_no_postfix_no_way_out_and_takes_no_notices(mail: Mail) -> None:
    [instance] = declare(Config(mail=mail)).instances
    assert [unit.name for unit in instance.units] == [""]
    assert instance.egress == ()
    assert instance.notes == (NOT_CONFIGURED,)
    assert isinstance(instance.settings, Settings)
    assert instance.settings.envelope is None
    assert rendered("armail", Config(mail=mail)) == {}


def test_a_sender_is_made_up_from_the_machines_name() -> None:
    settings = declare(config("mail.example.org")).instances[0].settings
    assert isinstance(settings, Settings)
    assert settings.envelope is not None
    assert settings.envelope.sender == "alpha-ren@alpha-ren.main.lan.alpha-ren.internal"


def test_postfix_keeps_its_queue_and_takes_mail_from_its_namespace_only() -> None:
    files = rendered("armail", config("mail.example.org"))
    main = files["main.cf"].content
    assert "\nqueue_directory = /var/lib/alpha-ren-armail/queue\n" in main
    assert "\nsoft_bounce = yes\n" in main
    [listens] = [line.split()[0] for line in files["master.cf"].content.splitlines() if " inet " in line]
    assert listens == "127.0.0.1:smtp"
    assert "$" not in main.replace("$myhostname", "")
