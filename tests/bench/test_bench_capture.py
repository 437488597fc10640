"""HTTP messages in captures, and stamps beside them: packets by hand."""

import io
import socket
import struct
from pathlib import Path
from typing import cast

import dpkt
import pandas as pd
import pytest

from analysis.load import Run
from fltestbed.bench.accuracy import Plan, judge_one_way, judge_stamp, show_unstamped, stamp_errors
from fltestbed.bench.capture import HttpMessage, WallClock, read_messages, why_no_capture
from fltestbed.bench.models import SIZES
from fltestbed.bench.odd_clocks import OddClock
from fltestbed.bench.testbed import Witnessed
from fltestbed.bench.witness import Transfer, match
from fltestbed.clock import Clock
from fltestbed.errors import HostError, TestbedError

CLIENT, SERVER = ("10.77.0.2", 40000), ("10.77.0.1", 9092)
S = 1_000_000_000
MS = 1_000_000


def packet(sender: tuple[str, int], receiver: tuple[str, int], sequence: int, acknowledged: int, length: int) -> bytes:
    """A captured frame: headers alone, as a short snap length leaves them."""
    tcp = struct.pack("!HHIIBBHHH", sender[1], receiver[1], sequence % 2**32, acknowledged, 8 << 4, 16, 0, 0, 0) + b"\1" * 12
    addresses = socket.inet_aton(sender[0]) + socket.inet_aton(receiver[0])
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + 32 + length, 0, 0, 64, 6, 0) + addresses
    return b"\0" * 12 + b"\x08\0" + ip + tcp


def capture(folder: Path, *packets: tuple[float, bytes]) -> Path:
    """A capture file with nanoseconds."""
    output = io.BytesIO()
    writer = dpkt.pcap.Writer(output, nano=True)
    for at_s, data in packets:
        writer.writepkt(data, ts=at_s)
    file = folder / "host.pcap"
    file.write_bytes(output.getvalue())
    return file


def wall(*, ahead_ns: int) -> WallClock:
    """A wall clock that is ahead of the raw clock by so much, looked at twice."""
    at = iter(range(0, 200 * S, S))
    clock = Clock(raw_ns=lambda: 0, wall_ns=lambda: ahead_ns)
    watched = WallClock(clock)
    watched._looks = [(next(at), ahead_ns + n * S, n * S) for n in range(100)]
    return watched


def test_a_message_is_what_carries_one_acknowledgement(tmp_path: Path) -> None:
    """A request of two packets and a response of three, sequence numbers beyond 2**32 included; times on the raw clock."""
    top = 2**32 - 500
    file = capture(
        tmp_path,
        (11.0, packet(CLIENT, SERVER, 100, top, 600)),
        (11.1, packet(CLIENT, SERVER, 700, top, 400)),
        (12.0, packet(SERVER, CLIENT, top, 1100, 1000)),
        (12.5, packet(SERVER, CLIENT, top + 1000, 1100, 1000)),
        (13.0, packet(SERVER, CLIENT, top + 2000, 1100, 10)),
    )
    request, response = read_messages(file, wall(ahead_ns=10 * S))
    assert request == HttpMessage(CLIENT, SERVER, 1 * S, 1_100 * MS, 1000, 2)
    assert response == HttpMessage(SERVER, CLIENT, 2 * S, 3 * S, 2010, 3)


def test_the_last_packet_is_the_one_that_fills_the_last_gap(tmp_path: Path) -> None:
    """At the receiver of a loss: bytes 1000 to 2000 come last. A repetition after that changes nothing."""
    file = capture(
        tmp_path,
        (11.0, packet(CLIENT, SERVER, 0, 5, 1000)),
        (11.1, packet(CLIENT, SERVER, 2000, 5, 1000)),
        (11.2, packet(CLIENT, SERVER, 1000, 5, 1000)),
        (11.3, packet(CLIENT, SERVER, 2000, 5, 1000)),
    )
    (message,) = read_messages(file, wall(ahead_ns=10 * S))
    assert (message.last_ns, message.payload_bytes, message.packets) == (1_200 * MS, 3000, 4)


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    file = tmp_path / "host.pcap"
    file.write_bytes(b"nothing of the kind, and long enough for a header")
    with pytest.raises(HostError, match=r"host\.pcap: cannot be read as a capture"):
        read_messages(file, wall(ahead_ns=0))


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("tcpdump: eth0: You don't have permission to perform this capture on that device", "CAP_NET_RAW"),
        ("tcpdump: eth0: You don't have permission...\n(socket: Operation not permitted)", "CAP_NET_RAW"),
        ("setpriv: failed to execute tcpdump: No such file or directory", "apt install tcpdump"),
        ("tcpdump: eth9: No such device exists", "eth9: No such device exists"),
        ("", "it said nothing"),
    ],
)
def test_a_capture_that_cannot_be_opened_says_what_is_missing(said: str, lacks: str) -> None:
    """One line, with the host, the interface and the right or program that is missing."""
    reason = why_no_capture("pi-0", "eth0", said)
    assert reason.startswith("pi-0: ")
    assert lacks in reason
    assert "\n" not in reason


def test_the_wall_clocks_bound_is_half_a_look_and_its_largest_step() -> None:
    """Looks of 200 ns, and a slew of 30 ns between two of them: 130 ns."""
    watched = WallClock(Clock())
    watched._looks = [(0, 1000, 200), (1000, 2030, 1200)]
    assert watched.bound_ns == 100 + 30


ROW = {
    "client": "client-0", "direction": "downlink", "message_id": "m", "payload_bytes": 1900,
    "server_start_raw_ns": 1 * S, "server_end_raw_ns": 2 * S,
    "client_start_raw_ns": 1_101 * MS, "client_end_raw_ns": 3_003 * MS,
}  # fmt: skip
AT_SERVER = HttpMessage(SERVER, CLIENT, 1 * S + 500_000, 2 * S, 2000, 2)
AT_CLIENT = HttpMessage(SERVER, CLIENT, 1_100 * MS, 3 * S, 2000, 2)


def witnessed(*messages: HttpMessage) -> Witnessed:
    return Witnessed(Path(), list(messages), {"client-0": [AT_CLIENT]}, {"client-0": CLIENT[0]}, 0)


def recorded(**tables: pd.DataFrame) -> Run:
    return cast(Run, tables)


def test_a_transfer_is_found_by_its_size_and_judged_by_its_packets() -> None:
    """By hand: -0.5 ms at the first packet sent, 3 ms at the last received, which misses the bar."""
    small = HttpMessage(SERVER, CLIENT, 10, 20, 300, 1)
    (transfer,) = match(recorded(transfers=pd.DataFrame([ROW])), witnessed(small, AT_SERVER))
    errors = {found.stamp: found for found in stamp_errors("5g", "mini", [transfer]) if found.direction == "downlink"}
    assert {name: found.median_ms for name, found in errors.items()} == pytest.approx(
        {"server_start_raw_ns": -0.5, "server_end_raw_ns": 0, "client_start_raw_ns": 1, "client_end_raw_ns": 3}
    )
    verdicts = {name: judge_stamp(found).holds for name, found in errors.items()}
    assert verdicts == {
        "server_start_raw_ns": True, "server_end_raw_ns": True, "client_start_raw_ns": True, "client_end_raw_ns": False,
    }  # fmt: skip
    assert transfer.one_way_s == pytest.approx(1.9995)


def test_captures_that_do_not_hold_the_transfers_are_an_error() -> None:
    """One transfer on record and none at the server: the message says how many there are."""
    with pytest.raises(TestbedError, match="1 transfers are on record, but the captures hold 0 at the server and 1 at"):
        match(recorded(transfers=pd.DataFrame([ROW])), witnessed())


@pytest.mark.parametrize(("duration_s", "holds"), [(2.0, True), (2.0131, False), (1.9862, True), (1.9858, False)])
def test_a_one_way_time_may_be_wrong_by_its_uncertainty_and_two_milliseconds(duration_s: float, holds: bool) -> None:
    """The truth is 1.9995 s, the uncertainty 11.5 ms: from 1.986 to 2.013 s."""
    transfer = Transfer(cast("pd.Series[int]", pd.Series(ROW)), {"server": AT_SERVER, "client": AT_CLIENT})
    rows = pd.DataFrame(
        [{"message_id": "m", "phase": "downlink", "duration_s": duration_s, "duration_uncertainty_s": 0.0115}]
    )
    assert judge_one_way(recorded(phases=rows), "phases", [transfer], "5g").holds is holds


def test_transfers_that_ended_behind_a_gap_are_counted() -> None:
    """One of four, 7 ms open; other phases do not count, nor what was not recorded."""
    open_s = {"downlink": 0.007, "collect": 0.02, "uplink": 0.0, "train": 0.0}
    rows = pd.DataFrame([{"phase": phase, "stamp_uncertainty_s": seconds} for phase, seconds in open_s.items()])
    rows = pd.concat([rows, pd.DataFrame({"phase": ["uplink", "downlink"], "stamp_uncertainty_s": [0.0, float("nan")]})])
    share, most = show_unstamped(recorded(phases=rows), "ethernet, small")
    assert (share.figure, most.figure) == (25, 7)
    assert share.limit is most.limit is None


def test_the_truth_of_an_odd_clock_is_known() -> None:
    """Shifted by 37 s; or 100 ppm fast for 1000 s, which is 100 ms."""
    assert OddClock("", shift_s=37).truth_ns(40 * S) == 3 * S
    drifting = OddClock("", drift_ppm=100, since_ns=5 * S)
    assert drifting.truth_ns(1005 * S + 100 * MS) == 1005 * S
    assert OddClock("", step_s=3600).truth_ns(7) == 7


def test_the_plan_knows_how_long_it_takes() -> None:
    """15 rounds of 2 x 45 MB over 20 and 90 Mbit/s: 10 minutes at least; without transfers what the clocks take."""
    large = Plan(["5g"], [SIZES["large"]], parts=["stamps"])
    assert (large.rounds(SIZES["large"]), large.rounds(SIZES["mini"])) == (15, 50)
    assert 600 < large.duration_s() < 900
    assert Plan([], [], parts=["second-network"]).duration_s() == 45
