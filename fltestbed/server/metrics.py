"""A run for Prometheus, while it goes on: `fltestbed server --metrics-port`.

Names and units follow Prometheus' conventions (https://prometheus.io/docs/practices/naming/). A scrape reads what is known
last, in a thread of its own; nothing is counted for it while a round goes on.
"""

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from fltestbed import __version__
from fltestbed.errors import HostError
from fltestbed.server.progress import View

MOST_AT_ONCE = 16
SILENCE_S = 10.0


class RunCollector(Collector):
    """The figures of one run, read when they are asked for."""

    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment."""
        view = self._view
        batch, experiment = view.log.batch, view.experiment
        info = {"run": view.run, "experiment": experiment.name, "transport": experiment.transport, "version": __version__}
        yield InfoMetricFamily("fltestbed_run", "The run that is served.", value=info)
        yield GaugeMetricFamily("fltestbed_rounds_planned", "Rounds of the experiment.", value=experiment.rounds)
        yield GaugeMetricFamily("fltestbed_clients_ready", "Clients that have joined.", value=view.roster.count())
        if batch is not None:
            yield GaugeMetricFamily("fltestbed_round", "The round under way.", value=batch.round)
        accuracies = [state.accuracy for state in list(view.log.rounds.values()) if state.accuracy is not None]
        if accuracies:
            yield GaugeMetricFamily(
                "fltestbed_accuracy_ratio",
                "Accuracy of the global model, as the server found it last.",
                value=accuracies[-1],
            )
        state = GaugeMetricFamily(
            "fltestbed_client_phase", "1 for the phase that a client is in.", labels=["client", "phase"]
        )
        for task in list(batch.tasks.values()) if batch is not None else []:
            state.add_metric([task.client.name, task.state], 1)
        yield state
        yield from self._phases()

    def _phases(self) -> Iterable[Metric]:
        latest = self._view.latest
        labels = ["client", "link", "phase"]
        summary = SummaryMetricFamily(
            "fltestbed_phase_duration_seconds",
            "Seconds of a phase; what spans two hosts contains the uncertainty of the clock mapping.",
            labels=labels,
        )
        last = GaugeMetricFamily("fltestbed_phase_last_duration_seconds", "Seconds of the last one.", labels=labels)
        payload = CounterMetricFamily(
            "fltestbed_payload_bytes", "Payload of all transfers.", labels=["client", "link", "direction"]
        )
        signal = GaugeMetricFamily(
            "fltestbed_signal_dbm", "RSRP of a cell, RSSI of a WiFi network.", labels=["client", "link", "technology"]
        )
        everybody = [(name, known.link, known.phases) for name, known in list(latest.clients.items())]
        for name, link, phases in [*everybody, ("", "", latest.server_phases)]:
            for phase, timed in list(phases.items()):
                summary.add_metric([name, link, phase], timed.count, timed.sum_s)
                last.add_metric([name, link, phase], timed.last_s)
        for name, known in list(latest.clients.items()):
            for direction, size in list(known.payload_bytes.items()):
                payload.add_metric([name, known.link, direction], size)
            for technology, dbm in list(known.signal_dbm.items()):
                signal.add_metric([name, known.link, technology], dbm)
        return summary, last, payload, signal


@contextlib.contextmanager
def serving(view: View, host: str, port: int) -> Iterator[None]:
    """Answer Prometheus on `host` and `port` until the block ends.

    Raises
    ------
    HostError
        The port is in use, or the address is not this host's.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(view))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise HostError(f"--metrics-port {port}: cannot listen at {host}: {error.strerror}; choose another port") from error
    _bound(server)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _bound(server: Any) -> None:
    """Let whoever reaches the port hold a few threads, for a few seconds without a byte, and write nothing on the terminal.

    `server` is prometheus_client's, a `socketserver.ThreadingMixIn`.
    """
    free = threading.Semaphore(MOST_AT_ONCE)
    begin, answer = server.process_request, server.process_request_thread

    def process_request(request: socket.socket, address: Any) -> None:
        if free.acquire(blocking=False):
            request.settimeout(SILENCE_S)
            begin(request, address)
        else:
            server.shutdown_request(request)

    def process_request_thread(request: socket.socket, address: Any) -> None:
        try:
            answer(request, address)
        finally:
            free.release()

    server.process_request, server.process_request_thread = process_request, process_request_thread
    server.handle_error = lambda *_: None  # somebody went away
