"""`fltestbed certs`: what it makes, for whom it is readable, and what it never overwrites."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fltestbed.clock import Clock
from fltestbed.errors import ConfigError, HostError
from fltestbed.security.addresses import addresses_of, check_address, own_addresses
from fltestbed.security.folder import CertificateFolder
from fltestbed.security.node_keys import read_registered

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
FOUND = ("host", "10.0.0.1")


def at(moment: datetime) -> Clock:
    return Clock(wall_ns=lambda: int(moment.timestamp() * 1e9))


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    """With everything made at noon, for two nodes."""
    folder = CertificateFolder(tmp_path / "certs", at(NOON))
    folder.make(("radio-host", "fd00::1"), ("pi-0", "pi-1"), days=30, found=FOUND)
    return folder


def later(folder: CertificateFolder, **span: int) -> CertificateFolder:
    return CertificateFolder(folder.path, at(NOON + timedelta(**span)))


def certificate(folder: CertificateFolder, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder.path / f"{name}.crt").read_bytes())


def contents(folder: CertificateFolder) -> dict[str, bytes]:
    return {str(file.relative_to(folder.path)): file.read_bytes() for file in folder.path.rglob("*.*")}


def test_secrets_are_the_owners_alone(folder: CertificateFolder) -> None:
    """Mode 0600 for every private key, whatever the umask; what is public can be read; nothing else is left."""
    modes = {str(file.relative_to(folder.path)): file.stat().st_mode & 0o777 for file in folder.path.rglob("*.*")}
    secret = dict.fromkeys(("ca.key", "server.key", "nodes/pi-0.key", "nodes/pi-1.key"), 0o600)
    public = dict.fromkeys(("ca.crt", "server.crt", "nodes/pi-0.pub", "nodes/pi-1.pub"), 0o644)
    assert modes == secret | public


def test_the_servers_certificate_is_for_all_its_addresses(folder: CertificateFolder) -> None:
    """Given and found, names, IPv4 and IPv6, for the days that were asked for, signed by the CA."""
    server = certificate(folder, "server")
    assert addresses_of(server) == ("radio-host", "host", "fd00::1", "10.0.0.1")
    assert server.not_valid_after_utc == NOON + timedelta(days=30)
    assert server.not_valid_before_utc == NOON - timedelta(hours=1)
    server.verify_directly_issued_by(certificate(folder, "ca"))


def test_this_hosts_own_addresses_are_found() -> None:
    """Loopback by name and by address at least; no address carries its interface's name."""
    own = own_addresses()
    assert {"localhost", "127.0.0.1"} <= set(own)
    assert not any("%" in address for address in own)


def test_what_is_there_is_kept(folder: CertificateFolder) -> None:
    """A second call changes no file and says so; a new node is added beside the others."""
    before = contents(folder)
    steps = folder.make(("radio-host",), ("pi-0",), found=FOUND)
    assert {step.done for step in steps} == {"kept"}
    assert contents(folder) == before
    steps = folder.make((), ("pi-2",), found=FOUND)
    assert [step.path.name for step in steps if step.done == "made"] == ["pi-2.key", "pi-2.pub"]
    assert before.items() < contents(folder).items()


def test_renewing_replaces_the_servers_alone(folder: CertificateFolder) -> None:
    """New key, new certificate, the old addresses too; the CA and the nodes' keys stay."""
    before = contents(folder)
    steps = later(folder, days=29).make(("10.0.0.9",), days=60, renew=True, found=())
    assert [step.path.name for step in steps if step.done == "replaced"] == ["server.key", "server.crt"]
    changed = {name for name, data in contents(folder).items() if before[name] != data}
    assert changed == {"server.key", "server.crt"}
    server = certificate(folder, "server")
    assert addresses_of(server) == ("radio-host", "host", "fd00::1", "10.0.0.1", "10.0.0.9")
    assert server.not_valid_after_utc == NOON + timedelta(days=89)
    assert (folder.path / "server.key").stat().st_mode & 0o777 == 0o600


def test_a_ca_that_ends_is_renewed_with_its_key(folder: CertificateFolder) -> None:
    """Ten years later: the CA's certificate is new, its key is not, so clients with the old copy believe until its end."""
    key = (folder.path / "ca.key").read_bytes()
    old = certificate(folder, "ca")
    nearly = later(folder, days=3640)
    nearly.make(days=30, renew=True, found=FOUND)
    assert (folder.path / "ca.key").read_bytes() == key
    assert certificate(folder, "ca").not_valid_after_utc > NOON + timedelta(days=7000)
    certificate(folder, "server").verify_directly_issued_by(old)


def test_what_does_not_do_any_more_is_said(folder: CertificateFolder) -> None:
    """A certificate that lacks an address, has expired, or is of another CA: what to do stands in the message."""
    with pytest.raises(ConfigError, match=r"server\.crt: is not for 10\.0\.0\.9; add --renew"):
        folder.make(("10.0.0.9",), found=FOUND)
    with pytest.raises(ConfigError, match=r"server\.crt: expired on 2026-07-01 12:00 UTC; add --renew"):
        later(folder, days=31).make(found=FOUND)
    for name in ("ca.key", "ca.crt"):
        (folder.path / name).unlink()
    with pytest.raises(ConfigError, match=r"server\.crt: was not signed by .*ca\.crt; add --renew"):
        folder.make(found=FOUND)


def test_without_the_cas_key_nothing_is_signed(folder: CertificateFolder) -> None:
    """The key may be kept elsewhere: nodes can be added, a new certificate cannot be made."""
    (folder.path / "ca.key").unlink()
    folder.make((), ("pi-2",), found=FOUND)
    with pytest.raises(ConfigError, match=r"ca\.key: the CA's key is not here"):
        folder.make(renew=True, found=FOUND)


def test_a_private_key_that_has_gone_to_its_node_is_not_made_again(folder: CertificateFolder) -> None:
    """Its public half is the one that is registered."""
    public = (folder.nodes / "pi-0.pub").read_bytes()
    folder.node_key("pi-0").unlink()
    (step,) = folder.make((), ("pi-0",), found=FOUND)[-1:]
    assert (step.done, step.path.name) == ("kept", "pi-0.pub")
    assert not folder.node_key("pi-0").exists()
    assert (folder.nodes / "pi-0.pub").read_bytes() == public


def test_the_server_refuses_what_it_cannot_show(folder: CertificateFolder) -> None:
    """An expired certificate, a key of another one, a key that everybody can read, none at all."""
    assert folder.server_context().minimum_version == ssl.TLSVersion.TLSv1_3
    with pytest.raises(ConfigError, match="the server's certificate expired on 2026-07-01 12:00 UTC; make a new one with"):
        later(folder, days=31).server_context()
    with pytest.raises(ConfigError, match=r"is not valid before 2026-06-01 11:00 UTC.*set this host's clock"):
        later(folder, days=-2).server_context()
    key = folder.path / "server.key"
    key.chmod(0o644)
    with pytest.raises(HostError, match=r"server\.key: a secret that everybody on this host may read \(mode 0644\)"):
        folder.server_context()
    key.chmod(0o600)
    key.write_bytes((folder.path / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match=r"server\.key: does not belong to server\.crt"):
        folder.server_context()
    with pytest.raises(ConfigError, match=r"server\.crt: a certificate cannot be read.*make it with: fltestbed certs"):
        CertificateFolder(folder.path / "none", folder.clock).server_context()


def test_the_manifest_gets_nothing_secret(folder: CertificateFolder) -> None:
    """Addresses, dates and fingerprint of the certificate."""
    described = folder.describe()
    assert set(described) == {"certificate_addresses", "not_before", "not_after", "sha256"}
    assert len(described["sha256"]) == 64


@pytest.mark.parametrize("given", ["", "a b", "http://x", "10.0.0.1:9092", "-x", "x..y"])
def test_an_address_that_is_none_is_refused(given: str) -> None:
    """With examples of what is one."""
    with pytest.raises(ConfigError, match="neither a host name nor an address"):
        check_address("--address", given)


def test_a_list_of_keys_names_their_owners(folder: CertificateFolder, tmp_path: Path) -> None:
    """A folder by its files, one file by the comments; a comment that is no name leaves the name open."""
    keys = read_registered(folder.nodes)
    assert [key.name for key in keys] == ["pi-0", "pi-1"]
    assert all(key.public.startswith(b"-----BEGIN PUBLIC KEY-----\n") for key in keys)
    first, second = ((folder.nodes / f"pi-{number}.pub").read_text() for number in (0, 1))
    listed = tmp_path / "keys"
    listed.write_text(f"# of the shelf\n\n{first}{second.replace(' pi-1', ' root@pi')}")
    again = read_registered(listed)
    assert [key.name for key in again] == ["pi-0", None]
    assert [key.public for key in again] == [key.public for key in keys]


def test_a_list_that_is_none_is_refused(folder: CertificateFolder, tmp_path: Path) -> None:
    """Empty, missing, twice the same key, a private key, no key at all: with file and line."""
    empty, listed = tmp_path / "empty", tmp_path / "keys"
    empty.mkdir()
    with pytest.raises(ConfigError, match="empty: no public key there"):
        read_registered(empty)
    with pytest.raises(ConfigError, match="none: the list of the nodes' public keys cannot be read"):
        read_registered(tmp_path / "none")
    line = (folder.nodes / "pi-0.pub").read_text()
    for text, says in (
        (line + line, "keys:2: the same key as .*keys:1"),
        ("ssh-garbage AAAA pi\n", "keys:1: not a public key in OpenSSH's format"),
        (folder.node_key("pi-0").read_text(), "keys:1: not a public key in OpenSSH's format"),
    ):
        listed.write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_registered(listed)
