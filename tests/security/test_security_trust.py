"""Which server a client believes: real handshakes over loopback, with clocks that are right, behind and ahead."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fltestbed.clock import Clock
from fltestbed.errors import ConfigError
from fltestbed.security.folder import CertificateFolder
from fltestbed.security.trust import CertificateOutdated, ServerTrust, why_not_trusted
from fltestbed.server.listening import listen

NOW = datetime.now(UTC)
DAY_S = 86400.0


def at(moment: datetime) -> Clock:
    return Clock(wall_ns=lambda: int(moment.timestamp() * 1e9))


def certificates(path: Path, made: datetime, days: int, address: str = "127.0.0.1") -> CertificateFolder:
    folder = CertificateFolder(path, at(made))
    folder.make((address,), days=days, found=())
    return folder


@contextmanager
def serving(folder: CertificateFolder) -> Iterator[int]:
    """A TLS server that takes one connection after the other, and sends nothing; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.path / "server.crt", folder.path / "server.key")  # as it is: expired ones too

    def serve() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(sock, server_side=True) as secure:
                    secure.recv(1)

    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(2)
            thread.join(10)
    assert not thread.is_alive()


def connect(trust: ServerTrust, port: int) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trust.context)
    try:
        connection.connect()
    finally:
        connection.close()


Trust = Callable[..., ServerTrust]


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    """What a client with a clock that is so far off believes."""

    def make(folder: CertificateFolder, off_s: float = 0.0, *, synchronised: bool = False) -> ServerTrust:
        clock = at(NOW + timedelta(seconds=off_s))
        return ServerTrust(folder.ca_certificate, tmp_path / "state", clock, lambda: synchronised)

    return make


@pytest.mark.parametrize("off_s", [-2 * DAY_S, 0.0, 2 * DAY_S])
def test_a_wrong_clock_joins_by_the_servers(tmp_path: Path, trust: Trust, off_s: float) -> None:
    """A certificate of an hour ago that ends tomorrow: two days behind it is not valid yet, two ahead not any more."""
    with serving(certificates(tmp_path / "certs", NOW, 1)) as port:
        client = trust(certificates(tmp_path / "certs", NOW, 1), off_s)
        connect(client, port)
        client.learn_time(-off_s)
        connect(client, port)
    assert client.describe()["dates_checked_by"] == "the server's Date header"


@pytest.mark.parametrize("off_s", [-2 * DAY_S, 0.0, 2 * DAY_S])
def test_an_expired_certificate_is_refused_whatever_the_clients_clock(tmp_path: Path, trust: Trust, off_s: float) -> None:
    """It ended an hour ago by the server's clock: refused as soon as the time is known, and in each handshake after."""
    folder = certificates(tmp_path / "certs", NOW - timedelta(days=1, hours=1), 1)
    with serving(folder) as port:
        client = trust(folder, off_s)
        connect(client, port)
        with pytest.raises(CertificateOutdated, match="the server's certificate expired on"):
            client.learn_time(-off_s)
        with pytest.raises(CertificateOutdated, match="expired on"):
            connect(client, port)
    assert not (tmp_path / "state").exists()


def test_a_server_cannot_turn_the_time_back(tmp_path: Path, trust: Trust) -> None:
    """A client that has met the server today believes no expired certificate of yesterday, whatever Date comes with it."""
    fresh = certificates(tmp_path / "certs", NOW, 1)
    with serving(fresh) as port:
        client = trust(fresh, -2 * DAY_S)
        connect(client, port)
        client.learn_time(2 * DAY_S)
    for name in ("server.key", "server.crt"):  # what a thief of the old key shows
        (fresh.path / name).unlink()
    CertificateFolder(fresh.path, at(NOW - timedelta(days=3))).make(("127.0.0.1",), days=1, found=())
    with serving(fresh) as port, pytest.raises(CertificateOutdated, match="expired on"):
        connect(trust(fresh, -2 * DAY_S), port)


def test_an_expired_ca_is_refused(tmp_path: Path, trust: Trust) -> None:
    """A client that still has the CA's certificate of ten years ago, while the server's is of today: its file is named."""
    old = certificates(tmp_path / "certs", NOW - timedelta(days=3651), 1)
    copy = tmp_path / "ca.crt"
    copy.write_bytes(old.ca_certificate.read_bytes())
    CertificateFolder(old.path, at(NOW)).make(renew=True, found=())
    with serving(old) as port:
        client = ServerTrust(copy, tmp_path / "state", at(NOW), lambda: False)
        connect(client, port)
        with pytest.raises(CertificateOutdated, match=r"ca\.crt: the CA's certificate expired on .*copy ca\.crt again"):
            client.learn_time(0.0)


def refused(trust: ServerTrust, port: int) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011  # what it says is looked at by the caller
        connect(trust, port)
    return why_not_trusted(caught.value, trust.ca) or "nothing"


def test_a_clock_that_is_kept_right_decides_itself(tmp_path: Path, trust: Trust) -> None:
    """Expired and not yet valid are refused in the handshake, and nobody's Date is asked for."""
    for made, says in (
        (NOW - timedelta(days=2), "has expired by this host's clock"),
        (NOW + timedelta(days=2), "not valid yet"),
    ):
        folder = certificates(tmp_path / says[-5:], made, 1)
        with serving(folder) as port:
            assert says in refused(trust(folder, synchronised=True), port)


@pytest.mark.parametrize("synchronised", [False, True])
def test_another_ca_is_refused(tmp_path: Path, trust: Trust, synchronised: bool) -> None:
    """Clock or no clock; the message names the client's file."""
    ours, theirs = certificates(tmp_path / "ours", NOW, 1), certificates(tmp_path / "theirs", NOW, 1)
    with serving(theirs) as port:
        said = refused(trust(ours, synchronised=synchronised), port)
    assert f"was not signed by the CA in {ours.ca_certificate}" in said


def test_another_address_is_refused(tmp_path: Path, trust: Trust) -> None:
    """A certificate of the same CA for another host; the message says how to add an address."""
    folder = certificates(tmp_path / "certs", NOW, 1, "10.0.0.1")
    with serving(folder) as port:
        assert "is not for this name or address; add it" in refused(trust(folder), port)


def test_a_server_without_tls_is_told_from_one_that_is_not_there(tmp_path: Path, trust: Trust) -> None:
    """It answers something else than a handshake; one that is not there says nothing about its identity."""
    client = trust(certificates(tmp_path / "certs", NOW, 1))
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "the server does not speak TLS; leave --ca out" in refused(client, port)
        thread.join(10)
    assert refused(client, port) == "nothing"


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """Missing, and something else."""
    file = tmp_path / "ca.crt"
    with pytest.raises(ConfigError, match=r"ca\.crt: the CA's certificate cannot be read"):
        ServerTrust(file, tmp_path, Clock())
    file.write_text("garbage")
    with pytest.raises(ConfigError, match=r"--ca .*ca\.crt: not a certificate in PEM format"):
        ServerTrust(file, tmp_path, Clock())
