"""What has to hold after a run that was struck: each check gives what does not, one line each, or nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fltestbed.bench.faults.lab import read_manifest, read_rows, torn_rows
from fltestbed.bench.faults.matrix import CLIENTS, ROUNDS, VICTIM, Cell, Channel
from fltestbed.measure.schema import PHASES

Row = dict[str, str]
SYMPTOMS = frozenset({
    "connection reset by the client", "connection closed by the client", "connection stalled", "connection timed out",
    "silence", "error reply", "node unavailable",
})  # fmt: skip
"""That events.csv has words for."""


@dataclass(frozen=True)
class Message:
    """One message to one client, by what a run's tables say of it."""

    round: int
    client: str
    message_id: str
    is_accepted: bool
    missing: Sequence[Row]


def messages(run: Path) -> list[Message]:
    """The messages of every round that was made whole; of one that the server's end broke off, none.

    A round that was made again after a resumption counts as it was made last.
    """
    configured = read_rows(run, "phases", phase="configure", status="ok")
    latest = {int(row["round"]): 0 for row in configured}
    for row in configured:
        latest[int(row["round"])] = max(latest[int(row["round"])], int(row["start_raw_ns"]))
    whole = {int(row["round"]) for row in read_rows(run, "phases", phase="aggregate", status="ok")}
    held = {row["message_id"] for row in read_rows(run, "phases", phase="collect", status="ok")}
    events: dict[str, list[Row]] = {}
    for row in read_rows(run, "events", event="missing"):
        events.setdefault(row["message_id"], []).append(row)
    return [
        Message(
            number, row["client"], row["message_id"],
            row["message_id"] in held and not events.get(row["message_id"]), tuple(events.get(row["message_id"], ())),
        )
        for row in configured
        if (number := int(row["round"])) in whole and int(row["start_raw_ns"]) == latest[number]
    ]  # fmt: skip


def check_rows(run: Path) -> Iterator[str]:
    """Every line of every table is whole, and every round is there that the run's end implies."""
    yield from torn_rows(run)
    rounds = {int(row["round"]) for row in read_rows(run, "phases", phase="aggregate")}
    last = max(rounds, default=0)
    absent = sorted(set(range(1, last + 1)) - rounds)
    if absent:
        yield f"phases.csv: no row of the aggregation of round {', '.join(map(str, absent))}"


def check_named(run: Path) -> Iterator[str]:
    """Every reply that a round went on without is named once, with phase and symptom, and the manifest counts the same."""
    for message in messages(run):
        told = f"round {message.round}, {message.client}"
        if not message.is_accepted and not message.missing:
            yield f"{told}: no reply, and no row of events.csv that says so"
        for row in message.missing[1:]:
            yield f"{told}: missing twice: {row['phase']}, {row['symptom']}"
    events = read_rows(run, "events", event="missing")
    for row in events:
        if row["phase"] not in PHASES or row["symptom"] not in SYMPTOMS or not row["detail"]:
            yield f"round {row['round']}, {row['client']}: named with phase {row['phase']!r} and symptom {row['symptom']!r}"
    counted = Counter((row["client"], f"{row['phase']}: {row['symptom']}") for row in events)
    listed = {
        (client, what): count
        for client, found in read_manifest(run).get("missing", {}).items()
        for what, count in found.items()
    }
    if listed != counted:
        yield f"the manifest's missing {listed} are not those of events.csv {dict(counted)}"


def check_absence(run: Path, cell: Cell, victim: str, channel: Channel) -> Iterator[str]:
    """The cell costs the replies that it may, each named as it should be, and nobody else's."""
    absence, events = cell.absence, read_rows(run, "events", event="missing")
    expected = 0 if absence is None else 1
    told = "; ".join(f"round {row['round']}, {row['client']}, {row['phase']}: {row['detail']}" for row in events)
    if cell.fault.returns and len(events) != expected:
        yield f"{len(events)} replies were missing, not {expected}: {told}"
    for row in events[:expected]:
        if absence is not None and (
            row["client"] != victim
            or int(row["round"]) != absence.round
            or row["phase"] not in absence.phases(channel)
            or row["symptom"] not in absence.symptoms
        ):
            yield (
                f"named as {row['client']}, round {row['round']}, {row['phase']}, {row['symptom']}; right were {victim}, "
                f"round {absence.round}, {' or '.join(absence.phases(channel))}, {' or '.join(absence.symptoms)}"
            )
    strangers = sorted({row["client"] for row in events} - {victim})
    if strangers:
        yield f"missing, but not struck: {', '.join(strangers)}"
    last = [message for message in messages(run) if message.round == ROUNDS]
    there = sum(message.is_accepted for message in last)
    if cell.fault.returns and there != CLIENTS:
        yield f"the last round has {there} replies, not {CLIENTS}: the client was not taken back"
    if absence is not None and not cell.fault.returns and not events:
        yield "nobody is missing, although the link never came back"


def check_attempts(run: Path) -> Iterator[str]:
    """Every reply that is missing in a transfer has a row of transfers.csv for the attempt that failed."""
    failed = {(row["message_id"], row["direction"]) for row in read_rows(run, "transfers", status="failed")}
    for row in read_rows(run, "events", event="missing"):
        if row["phase"] in ("downlink", "uplink") and (row["message_id"], row["phase"]) not in failed:
            told = f"round {row['round']}, {row['client']}"
            yield f"{told}: lost in its {row['phase']}, of which transfers.csv has no failed row"


def check_status(run: Path, cell: Cell) -> Iterator[str]:
    """The manifest's status, and how each session of the server ended."""
    manifest = read_manifest(run)
    fault = cell.fault
    sessions = [str(session["status"]) for session in manifest["sessions"]]
    expected = [*fault.sessions[:-1], fault.status]
    if (manifest["status"], sessions) != (fault.status, expected):
        yield f"status {manifest['status']}, sessions {sessions}; right were {fault.status}, {expected}"
    if manifest["status"] == "complete" and "reason" in manifest:
        yield f"the run is complete, and yet has a reason for its failure: {manifest['reason']}"
    failed = [session for session in manifest["sessions"] if session["status"] == "failed"]
    if any(not session.get("reason") for session in failed):
        yield "a session has failed without a reason"
    gaps = read_rows(run, "sessions")
    if len(gaps) != len(sessions) or any(not row["gap_s"] for row in gaps[1:]):
        yield f"sessions.csv has {len(gaps)} rows, with gaps {[row['gap_s'] for row in gaps]}, for {len(sessions)} sessions"


def check_rounds(run: Path, limit_s: float) -> Iterator[str]:
    """No round took longer than its deadline and the grace."""
    for number, seconds in sorted(round_seconds(run).items()):
        if seconds > limit_s:
            yield f"round {number} took {seconds:.1f} s, more than {limit_s:g} s"


def round_seconds(run: Path) -> dict[int, float]:
    """From the readiness of the round's messages, as it was made last, to the end of its aggregation.

    Deadlines run from there as well, and before it a round may wait at a gate for a client that is started again.
    """
    starts: dict[int, int] = {}
    for row in read_rows(run, "phases", phase="configure"):
        starts[int(row["round"])] = max(starts.get(int(row["round"]), 0), int(row["end_raw_ns"]))
    ends = {int(row["round"]): int(row["end_raw_ns"]) for row in read_rows(run, "phases", phase="aggregate")}
    return {number: (ends[number] - start) / 1e9 for number, start in starts.items() if number in ends}


def check_later(run: Path, clients: int) -> Iterator[str]:
    """A later run is whole: nobody missing, nothing unusual."""
    manifest: dict[str, Any] = read_manifest(run)
    if manifest["status"] != "complete":
        yield f"a later run: status {manifest['status']}: {manifest.get('reason', '')}"
    events = read_rows(run, "events")
    if events:
        yield f"a later run: {len(events)} events: {events[0]['event']}, {events[0]['detail']}"
    accepted = sum(message.is_accepted for message in messages(run))
    if accepted != clients:
        yield f"a later run: {accepted} replies of {clients}"


def victim_name() -> str:
    """What the struck client is called."""
    return f"client-{VICTIM}"
