"""Rows of phases.csv: what began and ended by which host's clock, placed on the server's."""

from collections.abc import Callable
from typing import Any

from fltestbed.measure.mapping import Estimate
from fltestbed.measure.recorder import Recorder
from fltestbed.server.tasks import SERVER, Client, Stamp, Task


def on_server(raw_ns: int, uncertainty_ns: int = 0) -> Stamp:
    """A moment on the server's raw clock, which may have been earlier by as much as `uncertainty_ns`."""
    return Stamp(SERVER, raw_ns, uncertainty_ns)


class PhaseRows:
    """Writes phases.csv.

    Parameters
    ----------
    recorder : Recorder
    zero_raw_ns : int
        The run's zero on the server's raw clock.
    is_measured : callable (int) -> bool
        Whether a round is measured; of others nothing is written.
    """

    def __init__(self, recorder: Recorder, zero_raw_ns: int, is_measured: Callable[[int], bool]) -> None:
        self._recorder = recorder
        self._zero = zero_raw_ns
        self._is_measured = is_measured

    def write_server(self, round_: int, message_type: str, phase: str, start_ns: int, end_ns: int, detail: str = "") -> None:
        """A phase that belongs to the round as a whole; ns of the server's raw clock."""
        if not self._is_measured(round_):
            return
        self._recorder.write("phases.csv", {
            "round": round_, "message_type": message_type, "attempt": 1, "phase": phase,
            "start_host": SERVER, "start_raw_ns": start_ns, "end_host": SERVER, "end_raw_ns": end_ns,
            "start_ns": start_ns - self._zero, "end_ns": end_ns - self._zero, "duration_s": (end_ns - start_ns) / 1e9,
            "duration_uncertainty_s": 0.0, "placement_uncertainty_s": 0.0, "stamp_uncertainty_s": 0.0,
            "uncertain": False, "status": "ok", "detail": detail,
        })  # fmt: skip

    def write(
        self, task: Task, phase: str, start: Stamp | None, end: Stamp | None, *, payload_bytes: int | None = None,
        wire_bytes: int | None = None, status: str = "ok", detail: str = "",
    ) -> None:  # fmt: skip
        """A phase of one client.

        Parameters
        ----------
        start, end : Stamp or None
            Each on the clock of the host that saw it; None where it could not be seen or believed: `status` says which.
        payload_bytes, wire_bytes : int, optional
            Of a transfer, in its direction.
        """
        if not task.is_measured:
            return
        row: dict[str, Any] = {
            "round": task.round, "client": task.client.name, "link": task.client.link, "message_type": task.message_type,
            "message_id": task.message_id, "attempt": max(1, task.attempt), "phase": phase,
            "payload_bytes": payload_bytes, "wire_bytes": wire_bytes, "status": status, "detail": detail,
        }  # fmt: skip
        if start is not None and end is not None:
            row |= self._place(task.client, start, end)
        self._recorder.write("phases.csv", row)

    def _place(self, client: Client, start: Stamp, end: Stamp) -> dict[str, Any]:
        stamps_ns = start.uncertainty_ns + end.uncertainty_ns
        placed = {
            "start_host": start.host, "start_raw_ns": start.raw_ns, "end_host": end.host, "end_raw_ns": end.raw_ns,
            "stamp_uncertainty_s": stamps_ns / 1e9,
        }  # fmt: skip
        first, last = _offset(client, start), _offset(client, end)
        if first is None or last is None:
            return placed  # no clock sample yet: the raw stamps are kept, the analysis can place them later
        start_ns, end_ns = start.raw_ns + first.offset_ns, end.raw_ns + last.offset_ns
        same_host = start.host == end.host
        duration_ns = end.raw_ns - start.raw_ns if same_host else end_ns - start_ns
        uncertainty_ns = stamps_ns + (0 if same_host else max(first.half_width_ns, last.half_width_ns))
        return placed | {
            "start_ns": start_ns - self._zero, "end_ns": end_ns - self._zero, "duration_s": duration_ns / 1e9,
            "duration_uncertainty_s": uncertainty_ns / 1e9,
            "placement_uncertainty_s": max(first.half_width_ns, last.half_width_ns) / 1e9,
            "uncertain": abs(duration_ns) < uncertainty_ns,
        }  # fmt: skip


def _offset(client: Client, stamp: Stamp) -> Estimate | None:
    """What leads from the stamp's clock to the server's; None as long as nothing is known of the client's."""
    return Estimate(0, 0) if stamp.host == SERVER else client.mapping.at(stamp.raw_ns)
