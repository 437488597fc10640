"""Who was missing: events.csv, and what the manifest says of it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from fltestbed.measure.recorder import Recorder, Value
from fltestbed.server.tasks import Client, Symptom, Task


class AbsenceLog:
    """Writes a row for every reply that a round went on without, and for every client that came back.

    Parameters
    ----------
    recorder : Recorder
    zero_raw_ns : int
        The run's zero on the server's raw clock.
    told : callable (dict), optional
        Gets the summary for the manifest, each time it has changed.
    before : dict, optional
        The summary of earlier sessions of the run, which counts go on from.
    """

    def __init__(
        self,
        recorder: Recorder,
        zero_raw_ns: int,
        told: Callable[[dict[str, Any]], None] = lambda _: None,
        before: dict[str, dict[str, int]] | None = None,
    ) -> None:
        self._recorder = recorder
        self._zero = zero_raw_ns
        self._told = told
        self._counts = {name: Counter(counts) for name, counts in (before or {}).items()}
        self.round = 0
        """The round under way."""

    def missing(self, task: Task, symptom: Symptom, raw_ns: int, limit: str = "") -> None:
        """A round goes on without a reply; `limit` names the limit that was over, if that is why."""
        detail = f"{symptom.detail} ({limit})" if limit else symptom.detail
        self._write("missing", raw_ns, {
            "round": task.round, "client": task.client.name, "message_type": task.message_type,
            "message_id": task.message_id, "attempt": max(1, task.attempt), "phase": symptom.phase,
            "symptom": symptom.kind, "detail": detail, "duration_s": (raw_ns - task.ready_ns) / 1e9,
        })  # fmt: skip
        self._counts.setdefault(task.client.name, Counter())[f"{symptom.phase}: {symptom.kind}"] += 1
        self._told({name: dict(counts) for name, counts in self._counts.items()})

    def returned(self, client: Client, raw_ns: int, lost_ns: int) -> None:
        """A client that was missing has been heard again."""
        self._write("returned", raw_ns, {"client": client.name, "duration_s": (raw_ns - lost_ns) / 1e9})

    def joined_again(self, client: Client, raw_ns: int, lost_ns: int | None, detail: str) -> None:
        """A client that had joined joins anew."""
        away_s = None if lost_ns is None else (raw_ns - lost_ns) / 1e9
        self._write("joined_again", raw_ns, {"client": client.name, "detail": detail, "duration_s": away_s})

    def abandoned(self, round_: int, message_type: str, raw_ns: int, replied: int, minimum: int) -> None:
        """A round had too few replies."""
        self._write("abandoned", raw_ns, {
            "round": round_, "message_type": message_type, "detail": f"{replied} replies, at least {minimum} are wanted",
        })  # fmt: skip

    def _write(self, event: str, raw_ns: int, row: dict[str, Value]) -> None:
        base: dict[str, Value] = {
            "round": self.round, "event": event, "raw_ns": raw_ns, "time_s": (raw_ns - self._zero) / 1e9,
        }  # fmt: skip
        self._recorder.write("events.csv", base | row)
