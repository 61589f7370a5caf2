"""Package sources for the firmware follow the machine's own, whatever form they have."""

from pathlib import Path

import pytest

from scripts.building import aptsources
from scripts.building.aptsources import KEYRING, Source
from scripts.building.failure import Failure

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://other.example
Suites: nodistro
Components: main
"""


def test_both_formats_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text(
        "# deb http://commented.example bookworm main\n"
        "deb [arch=amd64 signed-by=/etc/apt/keyrings/m.gpg] http://mirror.example/debian bookworm main non-free # why\n"
        "deb-src http://mirror.example/debian bookworm main\n"
    )
    (folder / "debian.sources").write_text(DEB822)
    found = aptsources.configured(tmp_path)
    assert found[0] == Source(
        ("http://mirror.example/debian",), ("bookworm",), ("main", "non-free"), "/etc/apt/keyrings/m.gpg"
    )
    assert [source.suites for source in found[1:]] == [
        ("bookworm", "bookworm-updates"),
        ("bookworm-security",),
        ("nodistro",),
    ]


def test_suites_become_the_firmwares_release_and_others_archives_are_left_out() -> None:
    chosen = aptsources.for_release(aptsources.deb822(DEB822), "bookworm", "trixie")
    assert [source.suites for source in chosen] == [("trixie", "trixie-updates"), ("trixie-security",)]
    assert all(source.components == ("main",) for source in chosen)


def test_a_source_without_a_key_gets_debians() -> None:
    chosen = aptsources.for_release([Source(("http://m.example",), ("trixie",), ("main",))], "trixie")
    assert chosen[0].signed_by == KEYRING


def test_what_is_written_reads_back_the_same_with_an_inline_key() -> None:
    chosen = aptsources.for_release(aptsources.deb822(DEB822), "bookworm")
    assert list(aptsources.deb822(aptsources.rendered(chosen))) == chosen


def test_a_machine_without_a_debian_archive_is_told_so() -> None:
    with pytest.raises(Failure) as failure:
        aptsources.for_release([Source(("http://other.example",), ("nodistro",), ("main",))], "bookworm")
    assert failure.value.code == "no-package-source"
    assert "bookworm" in failure.value.sentence
