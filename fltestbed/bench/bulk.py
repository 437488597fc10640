"""Transfers of a contender that stamps nothing, from the packets at both ends of its link.

A stock SuperNode moves a model object by object over several connections. What carries a model are its large requests and
responses; between the last of one direction and the first of the other the client trains or waits. So the large messages of
a client, in the order of time, are runs of responses and runs of requests in turns: downlinks and uplinks.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from fltestbed.bench.capture import HttpMessage, WallClock, capturing, read_messages
from fltestbed.bench.place import Place
from fltestbed.clock import SYSTEM_CLOCK

BULK_BYTES = 4096
"""Smaller messages are requests for work, heartbeats and small tensors; leaving them out favours who is judged by this."""
SHARE = 0.1

Burst = tuple[int, int]

log = logging.getLogger("fltestbed")


class Bulk:
    """Captures at the server and at every client.

    Attributes
    ----------
    downlink_s, uplink_s : list of float
        First packet at the sender to last packet at the receiver, one a client and counted round; filled when the block of
        `watching` has ended, and empty if the packets are not as many transfers as there were rounds.
    """

    def __init__(self) -> None:
        self.downlink_s: list[float] = []
        self.uplink_s: list[float] = []

    def add(self, at_server: Sequence[HttpMessage], at_client: Sequence[HttpMessage], client: str, rounds: int) -> None:
        """Transfers of one client, by its address; the first and the last round are not counted."""
        theirs, ours = (bursts(messages, client) for messages in (at_client, at_server))
        counts = {len(of_host[is_up]) for of_host in (theirs, ours) for is_up in (False, True)}
        if counts != {rounds}:
            log.warning("%s: packets show %s transfers each way, not %s; they are left out", client, sorted(counts), rounds)
            return
        down, up = zip(ours[False], theirs[False], strict=True), zip(theirs[True], ours[True], strict=True)
        self.downlink_s += [(last - first) / 1e9 for (first, _), (_, last) in list(down)[1:-1]]
        self.uplink_s += [(last - first) / 1e9 for (first, _), (_, last) in list(up)[1:-1]]


def bursts(messages: Sequence[HttpMessage], client: str) -> dict[bool, list[Burst]]:
    """First and last moment of each run of large messages, by whether the client sent them.

    Between two runs the names of objects pass, in messages that are large as well: what is less than `SHARE` of the largest
    run is no transfer, and does not part one.
    """
    large = [message for message in messages if message.payload_bytes >= BULK_BYTES]
    own = [message for message in large if client in (message.sender[0], message.receiver[0])]
    runs = [(is_up, list(run)) for is_up, run in groupby(own, key=lambda message: message.sender[0] == client)]
    least = SHARE * max((_payload_bytes(run) for _, run in runs), default=0)
    found: dict[bool, list[Burst]] = {False: [], True: []}
    for is_up, parts in groupby([run for run in runs if _payload_bytes(run[1]) >= least], key=lambda run: run[0]):
        run = [message for _, part in parts for message in part]
        found[is_up].append((min(message.first_ns for message in run), max(message.last_ns for message in run)))
    return found


def _payload_bytes(run: Sequence[HttpMessage]) -> int:
    return sum(message.payload_bytes for message in run)


@contextlib.contextmanager
def watching(place: Place, port: int, rounds: int, folder: Path) -> Iterator[Bulk]:
    """Capture for as long as the block lasts; then the transfers are there.

    Raises
    ------
    HostError
        Packets cannot be captured.
    """
    bulk = Bulk()
    hosts = (place.server, *place.clients)
    files = {host.name: folder / f"{host.name}.pcap" for host in hosts}
    with WallClock(SYSTEM_CLOCK) as wall, contextlib.ExitStack() as stack:
        for host in hosts:
            stack.enter_context(capturing(host, host.interface, port, files[host.name]))
        yield bulk
    at_server = read_messages(files[place.server.name], wall)
    for host in place.clients:
        bulk.add(at_server, read_messages(files[host.name], wall), host.address, rounds)
