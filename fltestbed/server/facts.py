"""What clients and the ServerApp process say, checked before it is believed.

A client is a stranger: every number is bounded, every name is known, every text is short, and what does not fit is refused
whole with the reason.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fltestbed.measure.mapping import ClockSample
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import ReplyFacts

Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 62, strict=True)]
Count = Annotated[int, Field(ge=0, lt=1 << 48)]
Amount = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=300)]
Name = Annotated[str, Field(max_length=64)]
Names = Annotated[tuple[Name, ...], Field(max_length=16)]
Figure = Annotated[float, Field(gt=-1e12, lt=1e12, allow_inf_nan=False)]
MessageId = Annotated[str, Field(max_length=80)]
Interface = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}$")]


M = TypeVar("M", bound="_Facts")


class FactsError(ValueError):
    """Facts that cannot be true; the text says which and why."""


class _Facts(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class SpanFacts(_Facts):
    """A piece of a phase on the client's clock."""

    phase: Literal["train", "evaluate"]
    start_raw_ns: Nanoseconds
    end_raw_ns: Nanoseconds
    detail: Text = ""


class TcpFacts(_Facts):
    """The sender's columns of transfers.csv."""

    rtt_s: Amount
    rtt_variance_s: Amount
    min_rtt_s: Amount
    retransmissions: Count
    congestion_window_segments: Count
    delivery_rate_bps: Count
    idle_s: Amount
    rto_s: Amount | None = None
    congestion_window_start_segments: Count | None = None
    idle_restart: bool | None = None
    congestion_control: Name


class TransferFacts(_Facts):
    """The client's part of a row of transfers.csv."""

    message_id: MessageId
    direction: Literal["downlink", "uplink"]
    client_start_raw_ns: Nanoseconds
    client_end_raw_ns: Nanoseconds
    client_response_raw_ns: Nanoseconds | None = None
    wire_up_bytes: Count | None = None
    wire_down_bytes: Count | None = None
    new_connection: bool
    connect_s: Amount | None = None
    tcp: TcpFacts | None = None


class _Reply(_Facts):
    downlink_end_raw_ns: Nanoseconds
    called_raw_ns: Nanoseconds
    returned_raw_ns: Nanoseconds
    send_raw_ns: Nanoseconds
    connect_ns: Nanoseconds = 0
    spans: Annotated[tuple[SpanFacts, ...], Field(max_length=100)] = ()


class _LateReply(_Reply):
    message_id: MessageId
    error: Text | None = None


class KeptReply(_LateReply):
    """A reply in a client's own copy: also what the server has said of its message, and of its end."""

    round: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    message_type: Name | None = None
    downlink_start_raw_ns: Nanoseconds | None = None
    server_end_raw_ns: Nanoseconds | None = None
    payload_bytes: Count | None = None


class _Sample(_Facts):
    exchange: Literal["clock", "pull", "push"]
    interface: Interface | None = None
    """None is the client's link."""
    stamps: tuple[Nanoseconds, Nanoseconds, Nanoseconds, Nanoseconds]


class SystemFacts(_Facts):
    """A row of system.csv on the client's clock."""

    raw_ns: Nanoseconds
    cpu_percent: Amount
    process_cpu_percent: Amount
    memory_used_bytes: Count
    process_memory_bytes: Count
    temperature_c: Annotated[float, Field(ge=-273.15, lt=1e3, allow_inf_nan=False)] | None = None
    throttled_flags: Name | None = None
    interface: Name
    rx_bytes: Count | None = None
    tx_bytes: Count | None = None
    probes_cpu_s: Amount | None = None
    time_sync: Name | None = None
    wall_offset_s: Figure | None = None
    wall_offset_uncertainty_s: Amount | None = None
    sched_delay_s: Amount | None = None


class RadioFacts(_Facts):
    """A row of radio.csv on the client's clock."""

    raw_ns: Nanoseconds
    interface: Name
    technology: Literal["wifi", "5g", "lte", "umts", "gsm"]
    rsrp_dbm: Figure | None = None
    rsrq_db: Figure | None = None
    sinr_db: Figure | None = None
    rssi_dbm: Figure | None = None
    tx_bit_rate_bps: Amount | None = None
    rx_bit_rate_bps: Amount | None = None
    channel: Count | None = None
    frequency_mhz: Amount | None = None
    channel_width_mhz: Amount | None = None
    power_save: bool | None = None
    cell: Name | None = None
    physical_cell: Count | None = None


class TimeSyncFacts(_Facts):
    """What a daemon says of the host's wall clock."""

    daemon: Name
    source: Text | None = None
    stratum: Count | None = None
    offset_s: Figure | None = None
    uncertainty_s: Amount | None = None
    frequency_ppm: Figure | None = None
    skew_ppm: Figure | None = None
    synchronised: bool | None = None


class ProbeFacts(_Facts):
    """What the manifest says of one probe of a client; what is not known yet is left out."""

    on: bool
    reason: Text | None = None
    reads: Text | None = None
    interval_s: Amount | None = None
    lacks: dict[Name, Text] | None = None
    since_boot: Names | None = None
    seen: Names | None = None
    modem: Text | None = None
    firmware: Text | None = None
    former_refresh_s: Amount | None = None
    start: Annotated[tuple[TimeSyncFacts, ...], Field(max_length=8)] | None = None
    end: Annotated[tuple[TimeSyncFacts, ...], Field(max_length=8)] | None = None
    samples: Count | None = None
    failures: Count | None = None
    failure: Text | None = None
    cpu_s_per_sample: Amount | None = None
    longest_s: Amount | None = None
    latest_s: Amount | None = None


class SchedulingFacts(_Facts):
    """What the client's stamping thread waited for a CPU, in all."""

    cpu_s: Amount
    delay_s: Amount
    time_slices: Count


class StampErrorFacts(_Facts):
    """What a client measured of its own stamping, as `fltestbed.measure.stamping.StampError` describes it."""

    scheduling: SchedulingFacts | None = None


class _Late(_Facts):
    replies: Annotated[tuple[_LateReply, ...], Field(max_length=16)] = ()
    system: Annotated[tuple[SystemFacts, ...], Field(max_length=256)] = ()
    radio: Annotated[tuple[RadioFacts, ...], Field(max_length=256)] = ()
    probes: Annotated[dict[Name, ProbeFacts], Field(max_length=16)] = Field(default_factory=dict)
    transfers: Annotated[tuple[TransferFacts, ...], Field(max_length=64)] = ()
    clock_samples: Annotated[tuple[_Sample, ...], Field(max_length=256)] = ()
    stamp_error: StampErrorFacts | None = None


class LateFacts:
    """What a client could not know yet when it sent its reply."""

    def __init__(self, late: _Late) -> None:
        self.replies = {reply.message_id: _in_order(reply, reply.error) for reply in late.replies}
        self.transfers = late.transfers
        self.system = late.system
        self.radio = late.radio
        self.probes = {name: probe.model_dump(mode="json", exclude_none=True) for name, probe in late.probes.items()}
        self.stamp_error = late.stamp_error
        self.clock_samples = [
            (ClockSample(*sample.stamps), sample.exchange, sample.interface) for sample in late.clock_samples
        ]


def read_facts(prologue: dict[str, Any], error: str | None = None) -> ReplyFacts:
    """Facts of a reply's prologue; `error` is the reason of an error reply.

    Raises
    ------
    FactsError
        A stamp is missing, of the wrong type, out of range, or they are not in the order in which things happen.
    """
    return _in_order(_validate(_Reply, prologue), error)


def _in_order(reply: _Reply, error: str | None) -> ReplyFacts:
    order = (reply.downlink_end_raw_ns, reply.called_raw_ns, reply.returned_raw_ns, reply.send_raw_ns - reply.connect_ns)
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
    )


def read_late_facts(facts: dict[str, Any]) -> LateFacts:
    """Clock samples and transfers that a client reports with any of its requests."""
    return LateFacts(_validate(_Late, facts))


class _Kept(_Facts):
    replies: Annotated[tuple[KeptReply, ...], Field(max_length=16)] = ()


def read_kept_replies(facts: dict[str, Any]) -> dict[str, KeptReply]:
    """Replies in a line of a client's own copy, by message, with what only that copy has."""
    return {reply.message_id: reply for reply in _validate(_Kept, facts).replies}


class StepMark(_Facts):
    """A step of the strategy is over."""

    kind: Literal["step"]
    name: str
    round: int
    start_raw_ns: Nanoseconds
    end_raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002  # one signature for all marks
        """Pass it on."""
        log.step(self.name, self.round, self.start_raw_ns, self.end_raw_ns)


class HeldMark(_Facts):
    """The ServerApp holds the reply to a message."""

    kind: Literal["held"]
    message_id: MessageId
    raw_ns: Nanoseconds
    error: Text | None = None

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.held(self.message_id, self.raw_ns, self.error)


class GatheredMark(_Facts):
    """The ServerApp waits no longer; replies to the messages that it has given up are refused from now on."""

    kind: Literal["gathered"]
    raw_ns: Nanoseconds
    given_up: tuple[MessageId, ...] = ()

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.gathered(self.raw_ns)


class MetricsMark(_Facts):
    """Figures that an app reported."""

    kind: Literal["metrics"]
    round: int
    source: Literal["server", "client", "aggregate"]
    message_type: Name = ""
    node_id: int | None = None
    values: dict[Name, float]
    raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:
        """Pass it on."""
        client = roster.client(self.node_id).name if self.node_id is not None else ""
        log.metrics(self.round, self.source, self.message_type, self.values, self.raw_ns, client)


class RoundMark(_Facts):
    """A round that is not measured is over."""

    kind: Literal["round"]
    round: int
    start_raw_ns: Nanoseconds
    end_raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.unmeasured(self.round, self.start_raw_ns, self.end_raw_ns)


class ModelMark(_Facts):
    """The size of what the ServerApp sends to a client."""

    kind: Literal["model"]
    parameters: Count
    tensors: Count
    bytes: Count

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        roster.manifest.update(model={"parameters": self.parameters, "tensors": self.tensors, "bytes": self.bytes})


class EndMark(_Facts):
    """The app is over."""

    kind: Literal["end"]
    raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.end(self.raw_ns)


Mark = RoundMark | StepMark | HeldMark | GatheredMark | MetricsMark | ModelMark | EndMark
_MARKS: TypeAdapter[list[Mark]] = TypeAdapter(list[Annotated[Mark, Field(discriminator="kind")]])


def read_marks(prologue: dict[str, Any]) -> list[Mark]:
    """What the ServerApp process tells of its own steps, in order."""
    try:
        return _MARKS.validate_python(prologue.get("marks", []))
    except ValidationError as error:
        raise FactsError(_first(error)) from error


def _validate(model: type[M], facts: dict[str, Any]) -> M:
    try:
        return model.model_validate(facts)
    except ValidationError as error:
        raise FactsError(_first(error)) from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
