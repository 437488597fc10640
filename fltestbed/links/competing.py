"""A stranger's traffic through the medium that the clients share: iperf3 from a host of its own to the server's.

The flow is up before the block begins and is stopped at its end. What it moved is read from the counters of its own host, so
the figure does not depend on how iperf3 ended.
"""

import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import IO, Any, Self

from fltestbed.children import end
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.config import CompetingFlow
from fltestbed.errors import HostError, LinkError
from fltestbed.links.namespace import InterfaceCounters
from fltestbed.links.topology import EmulatedNetwork, Host

PORT = 5201
"""iperf3's own."""
START_TIMEOUT_S = 10.0
FLOWING_BYTES = 50_000
"""The flow counts as up when its host has sent or received so much: more than iperf3's greetings, less than a queue."""
END_TIMEOUT_S = 5.0
POLL_S = 0.02

DIRECTION_OPTIONS = {"uplink": [], "downlink": ["--reverse"], "both": ["--bidir"]}


def check_iperf3() -> None:
    """Raise `HostError` when this host has no iperf3."""
    if shutil.which("iperf3") is None:
        raise HostError("competing-flow: iperf3 not found; install it (Debian package iperf3), or leave the flow out")


def flow_command(flow: CompetingFlow, address: str) -> list[str]:
    """iperf3's command line on the competing host, for a flow without an end to the server at `address`."""
    command = ["iperf3", "--client", address, "--port", str(PORT), "--time", "0", "--interval", "0"]
    command += DIRECTION_OPTIONS[flow.direction]
    if flow.protocol == "udp":
        command.append("--udp")
    if flow.rate_mbit is not None:
        command += ["--bitrate", f"{flow.rate_mbit:g}M"]
    return command


class CompetingTraffic:
    """A context manager: the flow competes with the clients inside the block.

    Parameters
    ----------
    flow : CompetingFlow
        Direction, protocol and rate.
    network : EmulatedNetwork
        Made with ``competitor=True`` and entered.
    clock : Clock
        Server and competitor are on this machine: its raw clock is the run's.

    Raises
    ------
    HostError
        iperf3 is missing.
    LinkError
        The flow did not come up; with what iperf3 said.
    """

    def __init__(self, flow: CompetingFlow, network: EmulatedNetwork, clock: Clock = SYSTEM_CLOCK) -> None:
        if network.competitor is None:
            raise LinkError("competing-flow: the emulated network was made without a host for it")
        self._flow = flow
        self._clock = clock
        self._server: Host = network.server
        self._host: Host = network.competitor
        self._stack = ExitStack()
        self._facts: dict[str, Any] = flow.model_dump(mode="json", by_alias=True)

    def __enter__(self) -> Self:
        check_iperf3()
        with ExitStack() as stack:
            said = stack.enter_context(tempfile.TemporaryFile())
            self._start(stack, self._server, ["iperf3", "--server", "--bind", self._server.address, "--one-off"], said)
            self._client = self._connect(stack, said)
            self._before = self._host.counters()
            self._facts |= {"program": _version(), "command": self._client.args, "started_raw_ns": self._clock.raw_ns()}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        after, end_ns = self._host.counters(), self._clock.raw_ns()
        self._facts |= {"ended_early": self._client.poll() is not None, "ended_raw_ns": end_ns}
        self._facts |= _moved(self._before, after, (end_ns - self._facts["started_raw_ns"]) / 1e9)
        self._stack.close()

    @property
    def ended_early(self) -> bool:
        """Whether the flow was over before the block was. Known after the block."""
        return bool(self._facts["ended_early"])

    @property
    def facts(self) -> dict[str, Any]:
        """What was sent, as plain data for a manifest.

        The keys of `CompetingFlow`; `program`, `command`; `started_raw_ns`, `ended_raw_ns` on the server's clock; and after
        the block `uplink_bytes`, `downlink_bytes` (Ethernet frames of the competing host), `uplink_mean_mbit`,
        `downlink_mean_mbit` and `ended_early`.
        """
        return dict(self._facts)

    def _connect(self, stack: ExitStack, said: IO[bytes]) -> subprocess.Popen[Any]:
        """Start the client's end, again for as long as the server's end is not there yet, and wait until data flows."""
        command = flow_command(self._flow, self._server.address)
        deadline = time.monotonic() + START_TIMEOUT_S
        before = self._host.counters()
        process = self._start(stack, self._host, command, said)
        while _bytes(self._host.counters()) - _bytes(before) < FLOWING_BYTES:
            if time.monotonic() > deadline:
                said.seek(0)
                words = said.read().decode(errors="replace").strip().splitlines() or ["nothing"]
                raise LinkError(f"competing-flow: no traffic within {START_TIMEOUT_S:g} s; iperf3 said: {words[-1]}")
            if process.poll() is not None:
                process = self._start(stack, self._host, command, said)
            time.sleep(POLL_S)
        return process

    @staticmethod
    def _start(stack: ExitStack, host: Host, command: list[str], said: IO[bytes]) -> subprocess.Popen[Any]:
        # In a process group of its own: Ctrl-C must not end the flow before the run has ended in good order.
        process = host.popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0)
        stack.callback(end, [process], END_TIMEOUT_S)
        return process


def _bytes(counters: InterfaceCounters) -> int:
    return counters.rx_bytes + counters.tx_bytes


def _moved(before: InterfaceCounters, after: InterfaceCounters, seconds: float) -> dict[str, Any]:
    """Bytes of each direction between two readings, and their mean rates."""
    first, last = asdict(before), asdict(after)
    moved = {"uplink": last["tx_bytes"] - first["tx_bytes"], "downlink": last["rx_bytes"] - first["rx_bytes"]}
    totals = {f"{way}_bytes": count for way, count in moved.items()}
    return totals | {f"{way}_mean_mbit": round(count * 8 / seconds / 1e6, 3) for way, count in moved.items()}


def _version() -> str:
    return subprocess.run(["iperf3", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
