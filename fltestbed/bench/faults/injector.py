"""Waits until a phase is under way, and strikes: by process identifier, by the link, by the disk or by the clock.

What says that a phase is under way is outside the toolkit wherever that is possible: counters of interfaces, the receive
queues of sockets, gates of the app (`fltestbed.bench.faults.gate`).

=========== =======================================================================================================
queue       the victim's process stands still and the server has answered its last request for work, so the round's
            message, which is complete (its row `configure` is on disk), waits for it to ask again
downlink    a tenth of the message has reached the victim's interface, over a link made slow for it
train       the app of the victim waits at a gate, and the victim's host has acknowledged all of the message
uplink      a tenth of the reply has left the victim's interface, over a link made slow for it
aggregate   the strategy waits at a gate with all replies
=========== =======================================================================================================
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from fltestbed.bench.faults.disk import fill, make_room
from fltestbed.bench.faults.gate import aggregate_gate, configure_gate, hold, is_reached, release, train_gate
from fltestbed.bench.faults.lab import PORT, FaultLab, Missed, wait_until
from fltestbed.bench.faults.matrix import ROUNDS, STRUCK, VICTIM, Cell

SLOW_MBIT, FAST_MBIT = 2.0, 50.0
PARAMETERS = 100_000
PAYLOAD_BYTES = 4 * PARAMETERS
"""1.6 s at `SLOW_MBIT`."""
BEGUN = 0.1
"""Part of a transfer after which it is under way; what is left is more than the buffers of a connection hold, so the host of
a process that stands still cannot take or send all of it without the process."""
SHORT_HOLD_S, HOLD_S = 1.0, 20.0
"""How long a request for work may be held: where the strike waits until one is answered without a message, and elsewhere."""
CARRIES_BYTES = 4000
"""More than keepalives and acknowledgements: a link carries a transfer again."""
START_S = 60.0
"""For a client or a server to come up again: a matter of its host, and of no deadline of the run."""
GRACE_S = 10.0
"""How much later than its deadline anything may end."""


@dataclass(frozen=True)
class Tools:
    """What strikes need beside the lab.

    Attributes
    ----------
    shared : Path
        Folder of the gates.
    client_disk, server_disk : Path or None
        Small disks of the victim and of the server, where the cell has them.
    step_file : Path
        The victim's wall clock steps when it is there.
    """

    shared: Path
    step_file: Path
    client_disk: Path | None = None
    server_disk: Path | None = None


def hold_s(cell: Cell) -> float:
    """`server.hold-s` of a cell's runs."""
    return SHORT_HOLD_S if cell.phase == "queue" else HOLD_S


class Injector:
    """One strike.

    Parameters
    ----------
    lab : FaultLab
        Its processes are not started yet: gates are closed first.
    cell : Cell
    tools : Tools

    Attributes
    ----------
    struck_ns : int
        When it struck, on this machine's CLOCK_MONOTONIC; 0 before.
    resumed_s : float or None
        After an outage of the link: from its end until it carried a transfer again.
    """

    def __init__(self, lab: FaultLab, cell: Cell, tools: Tools) -> None:
        self._lab = lab
        self._cell = cell
        self._tools = tools
        self._base = 0
        self._is_held_back = False
        self.struck_ns = 0
        self.resumed_s: float | None = None
        phase = cell.phase
        self._gate = {
            "queue": configure_gate(STRUCK), "downlink": configure_gate(STRUCK), "train": train_gate(STRUCK, VICTIM),
            "uplink": train_gate(STRUCK, VICTIM), "aggregate": aggregate_gate(STRUCK),
        }[phase]  # fmt: skip
        hold(tools.shared, self._gate)
        if cell.absence is not None and cell.fault.returns:
            hold(tools.shared, configure_gate(ROUNDS))

    def run(self) -> None:
        """Wait for the phase, strike, and do what people or supervisors would do then; the run goes on to its end.

        Raises
        ------
        WaitedTooLong
            Something hangs.
        Missed
            The phase was over before the fault could strike, or the server ended otherwise than it should.
        """
        wait_until(lambda: is_reached(self._tools.shared, self._gate), f"the run to come to {self._gate}")
        approaches: dict[str, Callable[[], None]] = {
            "queue": self._queue, "downlink": self._downlink, "train": self._train, "uplink": self._uplink,
        }  # fmt: skip
        approaches.get(self._cell.phase, lambda: None)()
        strike, aftermath = self._strikes[self._cell.fault.name]
        strike()
        self.struck_ns = time.monotonic_ns()
        self._check_under_way()
        self._let_go()
        aftermath()
        release(self._tools.shared, configure_gate(ROUNDS))

    # Phases

    def _queue(self) -> None:
        """Let the round's message wait for the victim."""
        lab, pid = self._lab, self._lab.pid(VICTIM)
        os.kill(pid, signal.SIGSTOP)
        self._is_held_back = True
        over = time.monotonic() + 2 * SHORT_HOLD_S
        wait_until(lambda: _unread_bytes(pid) > 0 or time.monotonic() > over, "the server to answer a request for work")
        release(self._tools.shared, self._gate)
        lab.wait_for_row("phases", round=str(STRUCK), client=self._name, phase="configure")

    def _downlink(self) -> None:
        lab = self._lab
        lab.network.set_rate(VICTIM, downlink_mbit=SLOW_MBIT)
        self._base = lab.received_bytes(VICTIM)
        release(self._tools.shared, self._gate)
        wait_until(lambda: lab.received_bytes(VICTIM) > self._base + BEGUN * PAYLOAD_BYTES, "a tenth of the downlink")

    def _train(self) -> None:
        """TCP may acknowledge the last bytes a moment after they were read; until then the server sees a downlink."""
        lab = self._lab
        address = lab.network.clients[VICTIM].address
        wait_until(lambda: not _unacknowledged_bytes(lab.server.pid, address), "the message to be acknowledged")

    def _uplink(self) -> None:
        lab = self._lab
        lab.network.set_rate(VICTIM, uplink_mbit=SLOW_MBIT)
        self._base = lab.sent_bytes(VICTIM)
        release(self._tools.shared, self._gate)
        wait_until(lambda: lab.sent_bytes(VICTIM) > self._base + BEGUN * PAYLOAD_BYTES, "a tenth of the uplink")

    def _check_under_way(self) -> None:
        """A strike that came too late proves nothing."""
        lab, phase = self._lab, self._cell.phase
        is_over: dict[str, Callable[[], bool]] = {
            "queue": lambda: bool(lab.rows("phases", round=str(STRUCK), client=self._name, phase="queue")),
            "downlink": lambda: lab.received_bytes(VICTIM) >= self._base + PAYLOAD_BYTES,
            "uplink": lambda: lab.sent_bytes(VICTIM) >= self._base + PAYLOAD_BYTES,
        }
        if phase in is_over and is_over[phase]():
            raise Missed(f"{self._cell.name}: the phase was over when the fault struck; try again on an idle machine")

    def _let_go(self) -> None:
        lab = self._lab
        release(self._tools.shared, self._gate)
        lab.network.set_rate(VICTIM, uplink_mbit=FAST_MBIT, downlink_mbit=FAST_MBIT)
        if self._is_held_back and self._cell.fault.name not in ("client-killed", "client-stopped"):
            os.kill(lab.pid(VICTIM), signal.SIGCONT)

    # Strikes, and what follows

    @property
    def _strikes(self) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
        lab = self._lab
        return {
            "client-killed": (self._kill_client, self._start_again),
            "client-stopped": (lambda: self._signal_client(signal.SIGSTOP), self._continue),
            "link-down-1s": (self._take_down, lambda: self._bring_up(1.0)),
            "link-down-30s": (self._take_down, lambda: self._bring_up(30.0)),
            "link-down": (self._take_down, self._wait_until_missed),
            "trainer-hung": (lambda: os.kill(lab.trainer(VICTIM), signal.SIGSTOP), self._wait_until_missed),
            "trainer-crashed": (lambda: os.kill(lab.trainer(VICTIM), signal.SIGSEGV), self._wait_until_missed),
            "disk-full-client": (lambda: _with_disk(self._tools.client_disk, fill), lambda: None),
            "disk-full-server": (lambda: _with_disk(self._tools.server_disk, fill), self._resume_with_room),
            "server-killed": (self._kill_server, lambda: self._resume(-signal.SIGKILL)),
            "serverapp-crashed": (lambda: os.kill(lab.server_app(), signal.SIGSEGV), lambda: self._resume(1)),
            "superlink-killed": (lab.server.kill, lambda: self._wait_for_server(-signal.SIGKILL)),
            "clock-stepped": (self._tools.step_file.touch, lambda: None),
        }

    @property
    def _name(self) -> str:
        return self._lab.network.clients[VICTIM].name

    @property
    def _limit_s(self) -> float:
        return self._cell.fault.round_deadline_s + GRACE_S

    def _kill_client(self) -> None:
        """Kill it, and wait until the kernel has closed what it had open: until then the server has nothing to see."""
        self._lab.clients[VICTIM].kill()
        self._lab.clients[VICTIM].wait()

    def _signal_client(self, number: signal.Signals) -> None:
        process = psutil.Process(self._lab.pid(VICTIM))
        for each in (process, *process.children(recursive=True)):
            os.kill(each.pid, number)

    def _wait_until_missed(self) -> None:
        self._lab.wait_for_row("events", self._limit_s, client=self._name, event="missing")

    def _wait_until_back(self) -> None:
        self._lab.wait_for_row("events", START_S, client=self._name, event="returned")

    def _start_again(self) -> None:
        self._wait_until_missed()
        self._lab.start_client(VICTIM)
        self._wait_until_back()

    def _continue(self) -> None:
        self._wait_until_missed()
        self._signal_client(signal.SIGCONT)
        self._wait_until_back()

    def _take_down(self) -> None:
        self._lab.network.set_link(VICTIM, up=False)

    def _bring_up(self, after_s: float) -> None:
        lab = self._lab
        time.sleep(max(0.0, after_s - (time.monotonic_ns() - self.struck_ns) / 1e9))  # the outage itself
        before = lab.sent_bytes(VICTIM) + lab.received_bytes(VICTIM)
        lab.network.set_link(VICTIM, up=True)
        start = time.monotonic()
        wait_until(
            lambda: lab.sent_bytes(VICTIM) + lab.received_bytes(VICTIM) > before + CARRIES_BYTES,
            "the link to carry a transfer again", self._limit_s,
        )  # fmt: skip
        self.resumed_s = time.monotonic() - start

    def _kill_server(self) -> None:
        app = self._lab.server_app()
        self._lab.server.kill()
        os.kill(app, signal.SIGKILL)

    def _wait_for_server(self, status: int) -> None:
        server = self._lab.server
        wait_until(lambda: server.poll() is not None, "the server to end", self._limit_s)
        if server.returncode != status:
            raise Missed(f"the server ended with status {server.returncode}, not {status}; its log says why")

    def _resume(self, status: int) -> None:
        self._wait_for_server(status)
        self._lab.resume_server()

    def _resume_with_room(self) -> None:
        self._wait_for_server(1)
        _with_disk(self._tools.server_disk, make_room)
        self._lab.resume_server()


def _with_disk(disk: Path | None, act: Callable[[Path], None]) -> None:
    if disk is None:
        raise Missed("the cell has no small disk to fill")
    act(disk)


def _unread_bytes(pid: int) -> int:
    """What has arrived for a client's connections to the server and was not read."""
    return sum(received for remote, _, received in _queues(pid) if remote.endswith(f":{PORT:04X}"))


def _unacknowledged_bytes(pid: int, address: str) -> int:
    """What the server's host has taken to be sent to an address, and was not acknowledged."""
    number = int.from_bytes(socket.inet_aton(address), sys.byteorder)
    return sum(sent for remote, sent, _ in _queues(pid) if remote.startswith(f"{number:08X}:"))


def _queues(pid: int) -> Iterator[tuple[str, int, int]]:
    """The connections of a process's network namespace: other end, bytes to be sent and to be read (/proc/net/tcp)."""
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        sent, _, received = words[4].partition(":")
        yield words[2], int(sent, 16), int(received, 16)
