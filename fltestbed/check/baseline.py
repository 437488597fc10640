"""What a link can carry before a run: ping for its round trip, iperf3 for its rate in each direction.

Measured over one interface at a time, while nobody else sends. The file in the client's state folder is what `fltestbed
client` tells the server when it joins over the same interface to the same server within a day; so it comes into the manifest
(`hosts.<client>.baseline`), where `analysis.capacity` finds it.
"""

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fltestbed.check.finding import NotHere, Said, error, ok, warning
from fltestbed.clock import Clock
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.tools import Toolbox
from fltestbed.measure.tcp import set_congestion_control
from fltestbed.security import files
from fltestbed.text import printable

PORT = 5201
"""iperf3's own."""
PINGS, PING_INTERVAL_S = 20, 0.2
RATE_S, OMIT_S = 5, 1
"""Each direction is measured for so long, and before that for so long left out: TCP starts slowly."""
BUSY_TIMEOUT_S = 120.0
BUSY_PAUSE_S = 2.0
MOST_AGE_S = 86400.0
FOLDER = "baseline"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class RoundTrips:
    """What ping says; times in seconds."""

    sent: int
    received: int
    min_s: float
    mean_s: float
    max_s: float
    deviation_s: float


@dataclass(frozen=True)
class Rate:
    """What iperf3 says of one direction.

    Attributes
    ----------
    rate_bps : float
        Bits of TCP payload a second that arrived.
    retransmissions : int or None
        Segments; None where the sender cannot count them.
    congestion_control : str
        Of the sender.
    """

    rate_bps: float
    retransmissions: int | None
    congestion_control: str


@dataclass(frozen=True)
class Baseline:
    """One interface, measured.

    Attributes
    ----------
    server : str
        The server's host, without port.
    interface : str
    ping : RoundTrips
    uplink, downlink : Rate
    boot_id : str
        Of the boot in which it was measured.
    boot_s : float
        CLOCK_BOOTTIME when it was measured: ages do not depend on a wall clock.
    wall_ns : int
        The same on the host's wall clock, for people.
    """

    server: str
    interface: str
    ping: RoundTrips
    uplink: Rate
    downlink: Rate
    boot_id: str
    boot_s: float
    wall_ns: int

    def describe(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def keep(self, state: Path) -> Path:
        """Write it into a client's state folder, in the place of an older one; returns where."""
        file = state / FOLDER / f"{self.interface}.json"
        files.replace(file, json.dumps(self.describe(), indent=2).encode() + b"\n", files.PUBLIC_MODE)
        return file


def measure_baseline(
    server: str, address: str, interface: str, tools: Toolbox, clock: Clock, congestion_control: str = "", port: int = PORT
) -> Baseline:
    """Measure the link to a server on which ``iperf3 -s`` runs; takes about 20 s.

    Parameters
    ----------
    server : str
        As the user names it, without port.
    address : str
        One of its addresses.
    interface : str
        Packets leave there or not at all.
    tools : Toolbox
        With a limit of 30 s at least.
    clock : Clock
    congestion_control : str
        Of both senders; empty, or one that this host has not, leaves each its own.
    port : int
        Of iperf3.

    Raises
    ------
    HostError
        ping or iperf3 is missing here.
    TestbedError
        One of them failed; with what it said.
    """
    trips = parse_ping(tools.ask("ping", "-n", "-q", "-c", str(PINGS), "-i", str(PING_INTERVAL_S), "-I", interface, address))
    command = [
        "iperf3", "--client", address, "--port", str(port), "--bind-dev", interface, "--json", "--time", str(RATE_S),
        "--omit", str(OMIT_S), "--connect-timeout", "5000",
    ]  # fmt: skip
    command += ["--congestion", congestion_control] if _has(congestion_control) else []
    uplink = _ask_until_free(lambda: tools.run(*command))
    downlink = _ask_until_free(lambda: tools.run(*command, "--reverse"))
    return Baseline(
        server, interface, trips, uplink, downlink, _boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME), clock.wall_ns()
    )


def check_baseline(measure: Callable[[], Baseline], interface: str, server: str) -> tuple[list[Said], Baseline | None]:
    """Measure, and say what came out."""
    check = f"baseline of {interface}"
    try:
        found = measure()
    except HostError as problem:
        return [NotHere(check, f"{problem}: sudo apt install iperf3 iputils-ping")], None
    except TestbedError as problem:
        return [error(check, str(problem), f"start on {server}: iperf3 -s; and let port {PORT} and ping through")], None
    said = (
        f"up {found.uplink.rate_bps / 1e6:.3g} Mbit/s, down {found.downlink.rate_bps / 1e6:.3g} Mbit/s, "
        f"round trip {found.ping.mean_s * 1e3:.3g} ms ({found.ping.min_s * 1e3:.3g} to {found.ping.max_s * 1e3:.3g})"
    )
    lost = found.ping.sent - found.ping.received
    if lost:
        return [
            warning(check, f"{said}, {lost} of {found.ping.sent} pings lost", "is the link idle, and strong enough?")
        ], found
    return [ok(check, said)], found


def recall_baseline(state: Path, server: str, interface: str) -> dict[str, Any] | None:
    """The baseline of a client's state folder, with its `age_s`, if it is of this server and interface and of today.

    None also where its age cannot be known: after a restart of this host it may be of any day.
    """
    try:
        kept: dict[str, Any] = json.loads((state / FOLDER / f"{interface}.json").read_text())
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - float(kept["boot_s"])
        fits = (kept["server"], kept["interface"], kept["boot_id"]) == (server, interface, _boot_id())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept | {"age_s": round(age_s, 1)} if fits and 0 <= age_s <= MOST_AGE_S else None


def parse_ping(text: str) -> RoundTrips:
    """The last lines of iputils' ``ping -q``.

    Raises
    ------
    TestbedError
        They are of another kind.
    """
    counts = re.search(r"(\d{1,9}) packets transmitted, (\d{1,9}) received", text)
    figure = r"(\d{1,9}(?:\.\d+)?)"
    times = re.search(f"= {figure}/{figure}/{figure}/{figure} ms", text)
    if counts is None or times is None:
        raise TestbedError(f"ping: {' '.join(text.split())[-120:]!r} is not what ping writes")
    return RoundTrips(int(counts[1]), int(counts[2]), *(float(each) / 1e3 for each in times.groups()))


def parse_iperf3(text: str) -> Rate:
    """The end of ``iperf3 --json``.

    Raises
    ------
    TestbedError
        iperf3 says what went wrong, or the answer is of another kind.
    """
    try:
        answer = json.loads(text)
        if "error" in answer:
            raise TestbedError(f"iperf3: {printable(str(answer['error']), 200)}")
        end = answer["end"]
        retransmissions = end["sum_sent"].get("retransmits")
        congestion_control = str(end.get("sender_tcp_congestion", ""))
        return Rate(float(end["sum_received"]["bits_per_second"]), retransmissions, congestion_control)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise TestbedError(f"iperf3: {text.strip()[:80]!r} is not what iperf3 writes") from problem


def _ask_until_free(ask: Callable[[], tuple[int, str, str]]) -> Rate:
    """A server of iperf3 takes one at a time: wait while it measures for another client."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        _, out, err = ask()
        try:
            return parse_iperf3(out or err)
        except TestbedError as problem:
            if "busy" not in str(problem) or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_S)


def _has(congestion_control: str) -> bool:
    """Whether this process may use it."""
    with socket.socket() as sock:
        return bool(congestion_control) and set_congestion_control(sock, congestion_control)


def _boot_id() -> str:
    return BOOT_ID.read_text().strip()
