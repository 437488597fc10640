"""What clients say, checked before it is believed.

A client is a stranger: every number is bounded, every name is known, every text is short. What does not fit is left out with
the reason, a row at a time, and costs neither the reply that it came with nor the client.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fltestbed.server.tasks import ReplyFacts
from fltestbed.text import printable

Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 62, strict=True)]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
"""A duration: at most four months, so that no sum or mean of absurd ones is ever made."""
Lateness = Annotated[int, Field(ge=0, le=3600 * 10**9, strict=True)]
"""Of a stamp, in nanoseconds: at most as long as a client waits for the end of an answer."""
Count = Annotated[int, Field(ge=0, lt=1 << 48)]
Amount = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=300)]
MOST_NAME = 64
Name = Annotated[str, Field(max_length=MOST_NAME)]
Names = Annotated[tuple[Name, ...], Field(max_length=16)]
Figure = Annotated[float, Field(gt=-1e10, lt=1e10, allow_inf_nan=False)]
Decibels = Annotated[float, Field(ge=-300, le=300, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""Of one core: a host may have many."""
PROBE_NAMES = ("system", "throttling", "time_sync", "wifi", "modem")
MessageId = Annotated[str, Field(max_length=80)]
Interface = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}$")]


MOST_SHOWN, MOST_PLACE = 40, 100
"""Characters of a value, and of its place, that a message shows."""

M = TypeVar("M", bound="Facts")


class FactsError(ValueError):
    """Facts that cannot be true; the text says which and why."""


class Facts(BaseModel):
    """What somebody told: fields that are not known are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class SpanFacts(Facts):
    """A piece of a phase on the client's clock."""

    phase: Literal["train", "evaluate"]
    start_raw_ns: Nanoseconds
    end_raw_ns: Nanoseconds
    detail: Text = ""


class TcpFacts(Facts):
    """The sender's columns of transfers.csv."""

    rtt_s: Seconds
    rtt_variance_s: Seconds
    min_rtt_s: Seconds
    retransmissions: Count
    congestion_window_segments: Count
    delivery_rate_bps: Count
    idle_s: Seconds
    rto_s: Seconds | None = None
    congestion_window_start_segments: Count | None = None
    idle_restart: bool | None = None
    congestion_control: Name


class TransferFacts(Facts):
    """The client's part of a row of transfers.csv."""

    message_id: MessageId
    direction: Literal["downlink", "uplink"]
    client_start_raw_ns: Nanoseconds
    client_end_raw_ns: Nanoseconds
    client_response_raw_ns: Nanoseconds | None = None
    wire_up_bytes: Count | None = None
    wire_down_bytes: Count | None = None
    new_connection: bool
    connect_s: Seconds | None = None
    tcp: TcpFacts | None = None
    attempt: Annotated[int, Field(ge=1, lt=1 << 31)] = 1
    failure: Text | None = None
    """Why the attempt failed; None if it did not."""


class _Reply(Facts):
    downlink_end_raw_ns: Nanoseconds
    called_raw_ns: Nanoseconds
    returned_raw_ns: Nanoseconds
    send_raw_ns: Nanoseconds
    connect_ns: Nanoseconds = 0
    first_send_raw_ns: Nanoseconds | None = None
    downlink_end_uncertainty_ns: Lateness = 0
    spans: Annotated[tuple[SpanFacts, ...], Field(max_length=100)] = ()


class LateReply(_Reply):
    """What a client knows of a reply that could not carry it itself."""

    message_id: MessageId
    error: Text | None = None


class KeptReply(LateReply):
    """A reply in a client's own copy: also what the server has said of its message, and of its end."""

    round: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    message_type: Name | None = None
    downlink_start_raw_ns: Nanoseconds | None = None
    server_end_raw_ns: Nanoseconds | None = None
    server_end_uncertainty_ns: Lateness = 0
    payload_bytes: Count | None = None


class SampleFacts(Facts):
    """Four stamps of an exchange."""

    exchange: Literal["clock", "pull", "push"]
    interface: Interface | None = None
    """None is the client's link."""
    stamps: tuple[Nanoseconds, Nanoseconds, Nanoseconds, Nanoseconds]


class SystemFacts(Facts):
    """A row of system.csv on the client's clock."""

    raw_ns: Nanoseconds
    cpu_percent: Percent
    process_cpu_percent: Percent
    memory_used_bytes: Count
    process_memory_bytes: Count
    temperature_c: Annotated[float, Field(ge=-273.15, lt=1e3, allow_inf_nan=False)] | None = None
    throttled_flags: Name | None = None
    interface: Name
    rx_bytes: Count | None = None
    tx_bytes: Count | None = None
    probes_cpu_s: Seconds | None = None
    time_sync: Name | None = None
    wall_offset_s: Figure | None = None
    wall_offset_uncertainty_s: Amount | None = None
    sched_delay_s: Seconds | None = None


class RadioFacts(Facts):
    """A row of radio.csv on the client's clock."""

    raw_ns: Nanoseconds
    interface: Name
    technology: Literal["wifi", "5g", "lte", "umts", "gsm"]
    rsrp_dbm: Decibels | None = None
    rsrq_db: Decibels | None = None
    sinr_db: Decibels | None = None
    rssi_dbm: Decibels | None = None
    tx_bit_rate_bps: Amount | None = None
    rx_bit_rate_bps: Amount | None = None
    channel: Count | None = None
    frequency_mhz: Amount | None = None
    channel_width_mhz: Amount | None = None
    power_save: bool | None = None
    cell: Name | None = None
    physical_cell: Count | None = None


class TimeSyncFacts(Facts):
    """What a daemon says of the host's wall clock."""

    daemon: Name
    source: Text | None = None
    stratum: Count | None = None
    offset_s: Figure | None = None
    uncertainty_s: Amount | None = None
    frequency_ppm: Figure | None = None
    skew_ppm: Figure | None = None
    synchronised: bool | None = None


class ProbeFacts(Facts):
    """What the manifest says of one probe of a client; what is not known yet is left out."""

    on: bool
    reason: Text | None = None
    reads: Text | None = None
    interval_s: Seconds | None = None
    lacks: Annotated[dict[Name, Text], Field(max_length=32)] | None = None
    since_boot: Names | None = None
    seen: Names | None = None
    modem: Text | None = None
    firmware: Text | None = None
    former_refresh_s: Seconds | None = None
    start: Annotated[tuple[TimeSyncFacts, ...], Field(max_length=8)] | None = None
    end: Annotated[tuple[TimeSyncFacts, ...], Field(max_length=8)] | None = None
    samples: Count | None = None
    failures: Count | None = None
    failure: Text | None = None
    cpu_s_per_sample: Seconds | None = None
    longest_s: Seconds | None = None
    latest_s: Seconds | None = None


class SchedulingFacts(Facts):
    """What the client's stamping thread waited for a CPU, in all."""

    cpu_s: Seconds
    delay_s: Seconds
    time_slices: Count


class StampErrorFacts(Facts):
    """What a client measured of its own stamping, as `fltestbed.measure.stamping.StampError` describes it."""

    scheduling: SchedulingFacts | None = None


class InterfaceBytes(Facts):
    """What an interface, or a client's sockets, have carried during a run."""

    sent_bytes: Annotated[int, Field(gt=-(1 << 62), lt=1 << 62)]
    received_bytes: Annotated[int, Field(gt=-(1 << 62), lt=1 << 62)]


class PathFacts(InterfaceBytes):
    """Where a client's bytes went, as `fltestbed.client.byte_count` says."""

    interfaces: Annotated[dict[Name, InterfaceBytes], Field(max_length=64)]
    mismatch: Annotated[str, Field(max_length=300, pattern=r"^[ -~]*$")] | None


def read_facts(prologue: dict[str, Any], error: str | None = None) -> ReplyFacts:
    """Facts of a reply's prologue; `error` is the reason of an error reply.

    Raises
    ------
    FactsError
        A stamp is missing, of the wrong type, out of range, or they are not in the order in which things happen.
    """
    return in_order(_validate(_Reply, prologue), error)


def in_order(reply: _Reply, error: str | None) -> ReplyFacts:
    """The facts of a reply, if its stamps are in the order in which things happen.

    Raises
    ------
    FactsError
    """
    connected_ns = reply.send_raw_ns - reply.connect_ns
    first_ns = connected_ns if reply.first_send_raw_ns is None else reply.first_send_raw_ns
    order = (reply.downlink_end_raw_ns, reply.called_raw_ns, reply.returned_raw_ns, first_ns, connected_ns)
    inside = all(
        reply.called_raw_ns <= span.start_raw_ns <= span.end_raw_ns <= reply.returned_raw_ns for span in reply.spans
    )
    if list(order) != sorted(order) or not inside:
        raise FactsError("the client's stamps are not in the order in which things happen")
    spans = tuple((span.phase, span.start_raw_ns, span.end_raw_ns, span.detail) for span in reply.spans)
    return ReplyFacts(
        downlink_end_ns=reply.downlink_end_raw_ns,
        called_ns=reply.called_raw_ns,
        returned_ns=reply.returned_raw_ns,
        spans=spans,
        send_ns=reply.send_raw_ns,
        connect_ns=reply.connect_ns,
        error=error,
        first_send_ns=reply.first_send_raw_ns,
        downlink_end_uncertainty_ns=reply.downlink_end_uncertainty_ns,
    )


class _Kept(Facts):
    replies: Annotated[tuple[KeptReply, ...], Field(max_length=16)] = ()


def read_kept_replies(facts: dict[str, Any]) -> dict[str, KeptReply]:
    """Replies in a line of a client's own copy, by message, with what only that copy has."""
    return {reply.message_id: reply for reply in _validate(_Kept, facts).replies}


def _validate(model: type[M], facts: dict[str, Any]) -> M:
    try:
        return model.model_validate(facts)
    except ValidationError as error:
        raise FactsError(first_problem(error)) from error


def first_problem(error: ValidationError) -> str:
    """The first problem: place, what is allowed, and what it was, if that is short."""
    problem = error.errors()[0]
    place = printable(".".join(str(part) for part in problem["loc"]), MOST_PLACE)  # it names keys that somebody chose
    value = problem["input"]
    given = f", not {value!r}" if isinstance(value, int | float | str) and len(str(value)) <= MOST_SHOWN else ""
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}{given}"
