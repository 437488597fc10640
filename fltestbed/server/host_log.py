"""What hosts tell whatever round is under way: exchanges for the clock mapping, and readings of their probes."""

import math
from collections.abc import Mapping

from fltestbed.measure.mapping import ClockMapping, ClockSample, Estimate
from fltestbed.measure.recorder import Recorder, Value
from fltestbed.server.plausibility import can_be
from fltestbed.server.tasks import Client

MOST_PATHS = 8
"""Interfaces of one client that clock samples may name: its link, a second network, and others that it had before."""


class HostLog:
    """Writes clock_samples.csv, clock.csv, system.csv and radio.csv, and keeps the clients' mappings.

    Parameters
    ----------
    recorder : Recorder
    zero_raw_ns : int
        The run's zero on the server's raw clock.
    """

    def __init__(self, recorder: Recorder, zero_raw_ns: int) -> None:
        self._recorder = recorder
        self._zero = zero_raw_ns

    def clock_sample(
        self,
        client: Client,
        sample: ClockSample,
        exchange: str,
        interface: str | None = None,
        told_ns: int | None = None,
    ) -> None:
        """Four stamps of an exchange with a client, over its link unless another interface is named.

        The client repeats the server's two stamps: they have to be between the run's zero and `told_ns`, when it told them.
        """
        interface = interface or client.interface
        if not self._zero <= sample.server_receive_raw_ns <= sample.server_send_raw_ns <= (told_ns or math.inf):
            client.doubt("the server's stamps of an exchange are not of the time of this run")
            return
        if interface not in client.paths and len(client.paths) >= MOST_PATHS:
            client.doubt(f"clock samples over more than {MOST_PATHS} interfaces")
            return
        if not sample.is_plausible:
            client.doubt("four stamps of an exchange are in an order that no clocks give")
            return
        self._recorder.write("clock_samples.csv", {
            "client": client.name, "interface": interface, "exchange": exchange,
            "client_send_raw_ns": sample.client_send_raw_ns,
            "server_receive_raw_ns": sample.server_receive_raw_ns,
            "server_send_raw_ns": sample.server_send_raw_ns,
            "client_receive_raw_ns": sample.client_receive_raw_ns,
            "offset_ns": sample.offset_ns, "half_width_ns": sample.half_width_ns,
        })  # fmt: skip
        if client.mapping.contradicts(sample):
            client.doubt("an exchange contradicts those before it by more than clocks drift")
        client.mapping.add(sample)
        path = client.paths.setdefault(interface, ClockMapping())
        if path.add(sample) and (estimate := path.at(sample.client_receive_raw_ns)) is not None:
            self._recorder.write("clock.csv", {
                "client": client.name, "interface": interface, "client_raw_ns": sample.client_receive_raw_ns,
                **vars(estimate),
            })  # fmt: skip

    def reading(
        self,
        table: str,
        host: str,
        row: Mapping[str, Value],
        client: Client | None = None,
        told_ns: int | None = None,
    ) -> None:
        """A reading of a host's probes for `table` (system or radio); `client` is None for the server itself.

        One that was not taken between the run's zero and `told_ns` of the server's clock is left out.
        """
        raw_ns = int(row["raw_ns"] or 0)
        if client is not None and not can_be(client.mapping, (raw_ns,), self._zero, told_ns):
            client.doubt(f"the stamp of a reading ({table}) is not of the time of this run")
            return
        offset = Estimate(0, 0) if client is None else client.mapping.at(raw_ns)
        time_s = None if offset is None else (raw_ns + offset.offset_ns - self._zero) / 1e9
        self._recorder.write(f"{table}.csv", {"host": host, **row, "time_s": time_s})
