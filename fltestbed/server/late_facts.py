"""What clients report with any of their requests, beside its purpose: taken row by row, as far as it can be true."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from fltestbed.measure.mapping import ClockSample
from fltestbed.server.facts import (
    PROBE_NAMES,
    Facts,
    FactsError,
    LateReply,
    PathFacts,
    ProbeFacts,
    RadioFacts,
    SampleFacts,
    StampErrorFacts,
    SystemFacts,
    TransferFacts,
    first_problem,
    in_order,
)
from fltestbed.server.tasks import ReplyFacts

M = TypeVar("M", bound=Facts)

_MOST_ROWS = {"replies": 16, "system": 256, "radio": 256, "transfers": 64, "clock_samples": 256, "probes": 16}
"""How many one request may bring."""


@dataclass(frozen=True)
class LateFacts:
    """What a client could not know yet when it sent its reply.

    Attributes
    ----------
    problems : tuple of str
        What was left out: for each place the first reason.
    """

    replies: dict[str, ReplyFacts]
    transfers: tuple[TransferFacts, ...]
    system: tuple[SystemFacts, ...]
    radio: tuple[RadioFacts, ...]
    probes: dict[str, dict[str, Any]]
    stamp_error: StampErrorFacts | None
    path: PathFacts | None
    clock_samples: list[tuple[ClockSample, str, str | None]]
    problems: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many rows this may become."""
        return len(self.transfers) + len(self.system) + len(self.radio) + len(self.clock_samples)

    def without_rows(self) -> "LateFacts":
        """The rest of it."""
        return replace(self, transfers=(), system=(), radio=(), clock_samples=[])


class _Reader:
    """Takes from what a client told what can be taken, and keeps the reasons for the rest."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._problems: dict[str, str] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems.values())

    def rows(self, name: str, kind: type[M]) -> tuple[M, ...]:
        most = _MOST_ROWS[name]
        rows = self._told.get(name, ())
        if not isinstance(rows, list | tuple):
            self.refuse(name, "input should be a list of rows")
            return ()
        if len(rows) > most:
            self.refuse(name, f"{len(rows)} rows in one request; at most {most} are allowed")
        found = (self.one(name, kind, row) for row in rows[:most])
        return tuple(row for row in found if row is not None)

    def named(self, name: str, kind: type[M], names: Collection[str]) -> dict[str, M]:
        most = _MOST_ROWS[name]
        entries = self._told.get(name, {})
        if not isinstance(entries, dict):
            self.refuse(name, "input should be a table")
            return {}
        if len(entries) > most:
            self.refuse(name, f"{len(entries)} entries in one request; at most {most} are allowed")
        found = {}
        for key, entry in list(entries.items())[:most]:
            if key not in names:
                self.refuse(name, f"one of another name than {', '.join(names)}")
            elif (one := self.one(name, kind, entry)) is not None:
                found[key] = one
        return found

    def one(self, name: str, kind: type[M], entry: Any) -> M | None:
        try:
            return kind.model_validate(entry)
        except ValidationError as error:
            place, _, reason = first_problem(error).partition(": ")
            self.refuse(".".join(filter(None, (name, place))), reason)
            return None

    def refuse(self, place: str, reason: str) -> None:
        self._problems.setdefault(place, f"{place}: {reason}")


def read_late_facts(told: dict[str, Any]) -> LateFacts:
    """Clock samples, transfers and readings that a client reports with any of its requests, as far as they can be."""
    reader = _Reader(told)
    replies = {}
    for reply in reader.rows("replies", LateReply):
        try:
            replies[reply.message_id] = in_order(reply, reply.error)
        except FactsError as error:
            reader.refuse("replies", str(error))
    samples = reader.rows("clock_samples", SampleFacts)
    probes = reader.named("probes", ProbeFacts, PROBE_NAMES)
    stamp_error, path = told.get("stamp_error"), told.get("path")
    return LateFacts(
        replies=replies,
        transfers=reader.rows("transfers", TransferFacts),
        system=reader.rows("system", SystemFacts),
        radio=reader.rows("radio", RadioFacts),
        probes={name: probe.model_dump(mode="json", exclude_none=True) for name, probe in probes.items()},
        stamp_error=None if stamp_error is None else reader.one("stamp_error", StampErrorFacts, stamp_error),
        path=None if path is None else reader.one("path", PathFacts, path),
        clock_samples=[(ClockSample(*sample.stamps), sample.exchange, sample.interface) for sample in samples],
        problems=reader.problems,
    )
