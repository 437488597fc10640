"""What is left open of an arrival, from the socket to the rows: at both ends, in the client's own copy, and over TLS."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from fltestbed.client.carriers import BundleCarrier, PatientConnection
from fltestbed.client.stamps import LateStamps
from fltestbed.client.tls_socket import TlsSocket
from fltestbed.client.trainer import Result
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.flower.bundle import decode
from fltestbed.measure import kernel_stamps
from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.security.folder import CertificateFolder
from fltestbed.server.facts import read_kept_replies
from tests.measure.gaps import BEHIND, LOST, fill_late
from tests.server.lab import Lab, Running
from tests.server.pi import TIMEOUT_S, Pi, instruct

TLS_RECORD_BYTES = 22
"""Around what is encrypted, in TLS 1.3: 5 of header, 1 of type, 16 of tag."""


def test_both_ends_of_a_gap_are_told(running: Running, lab: Lab, pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel that counts no packets behind gaps, every arrival is as late as it was read. What that leaves open of
    the downlink's end, which the client knows, and of the uplink's, is in the rows that end or begin there, and in no
    other; the client's own copy says the same.
    """
    monkeypatch.setattr(kernel_stamps, "out_of_order_packets", lambda _: None)
    reply = pi.connection.post_json("clock", {})
    stamps = [reply.send_ns, reply.data["server_receive_raw_ns"], reply.data["server_send_raw_ns"], reply.first_ns]
    pi.join(clock_samples=[{"exchange": "clock", "stamps": stamps}])
    (message_id,) = instruct(running, lab, pi.node_id)
    kept: list[dict[str, Any]] = []
    carrier = BundleCarrier(
        PatientConnection(running.address, pi.connection, TIMEOUT_S), LateStamps(kept.append), TIMEOUT_S, TIMEOUT_S
    )
    parcel = carrier.receive()
    assert parcel is not None
    assert parcel.pulled is not None
    (message,) = decode(parcel.data).inflate()
    carrier.send(parcel, Result(message_id, pi.facts(parcel.pulled), b"".join(pi.answer(message).encode()[1:])))
    running.call(lab.log.held, message_id, SYSTEM_CLOCK.raw_ns(), None)

    rows = {row["phase"]: row for row in lab.rows.phases("pi-0")}
    told = {phase: row["stamp_uncertainty_s"] for phase, row in rows.items()}
    assert told["downlink"] == told["deserialize"] == parcel.pulled.end_uncertainty_ns / 1e9 > 0
    assert told["uplink"] == told["collect"] > 0
    assert {told[phase] for phase in ("configure", "queue", "train", "serialize")} == {0}
    assert rows["deserialize"]["duration_uncertainty_s"] == told["deserialize"]
    assert rows["downlink"]["duration_uncertainty_s"] > told["downlink"]  # by the clocks' part
    own = read_kept_replies(kept[-1])[message_id]
    assert own.downlink_end_uncertainty_ns / 1e9 == told["downlink"]
    assert own.server_end_uncertainty_ns / 1e9 == told["uplink"]


def test_under_tls_the_gap_is_in_the_encrypted_bytes(tmp_path: Path) -> None:
    """A record that waits for its first packet ends when that packet has come, within what is left open."""
    certificates = CertificateFolder(tmp_path / "certs", SYSTEM_CLOCK)
    certificates.make(("127.0.0.1",), found=())
    with socket.create_server(("127.0.0.1", 0)) as listener, StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as far:
        far.settimeout(TIMEOUT_S)
        far.connect(listener.getsockname())
        accepted, _ = listener.accept()
        served: list[ssl.SSLSocket] = []
        context = certificates.server_context()
        handshake = threading.Thread(target=lambda: served.append(context.wrap_socket(accepted, server_side=True)))
        handshake.start()
        tls = TlsSocket(far, ssl.create_default_context(cafile=certificates.ca_certificate), "127.0.0.1")
        handshake.join()
        with served[0] as near:
            sent, least, most = fill_late(near, far, LOST + TLS_RECORD_BYTES)
            got = 0
            while got < LOST + BEHIND:
                got += tls.recv_into(bytearray(4000))
            tls.close()
    assert far.arrived_ns is not None
    assert far.arrived_ns >= least
    assert sent < far.arrived_ns - far.arrival_uncertainty_ns <= most
