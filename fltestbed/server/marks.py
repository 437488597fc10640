"""What the ServerApp's process tells of its own steps, checked before it is believed: an app is the user's."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fltestbed.server.facts import Count, Facts, FactsError, MessageId, Name, Nanoseconds, Text, first_problem
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog


class StepMark(Facts):
    """A step of the strategy is over."""

    kind: Literal["step"]
    name: str
    round: int
    start_raw_ns: Nanoseconds
    end_raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002  # one signature for all marks
        """Pass it on."""
        log.step(self.name, self.round, self.start_raw_ns, self.end_raw_ns)


class HeldMark(Facts):
    """The ServerApp holds the reply to a message."""

    kind: Literal["held"]
    message_id: MessageId
    raw_ns: Nanoseconds
    error: Text | None = None

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.held(self.message_id, self.raw_ns, self.error)


class RefusedMark(Facts):
    """A reply that the ServerApp holds cannot be averaged with the others."""

    kind: Literal["refused"]
    message_id: MessageId
    raw_ns: Nanoseconds
    reason: Text

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.refused(self.message_id, self.raw_ns, self.reason)


class GatheredMark(Facts):
    """The ServerApp waits no longer; replies to the messages that it has given up are refused from now on."""

    kind: Literal["gathered"]
    raw_ns: Nanoseconds
    given_up: tuple[MessageId, ...] = ()

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.gathered(self.raw_ns)


class AbandonedMark(Facts):
    """A round had too few replies: the strategy got none of them."""

    kind: Literal["abandoned"]
    round: int
    message_type: Name
    replied: Count
    minimum: Count
    raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.absences.abandoned(self.round, self.message_type, self.raw_ns, self.replied, self.minimum)


class MetricsMark(Facts):
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


class RoundMark(Facts):
    """A round that is not measured is over."""

    kind: Literal["round"]
    round: int
    start_raw_ns: Nanoseconds
    end_raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.unmeasured(self.round, self.start_raw_ns, self.end_raw_ns)


class ModelMark(Facts):
    """The size of what the ServerApp sends to a client."""

    kind: Literal["model"]
    parameters: Count
    tensors: Count
    bytes: Count

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        roster.manifest.update(model={"parameters": self.parameters, "tensors": self.tensors, "bytes": self.bytes})


class CheckpointsMark(Facts):
    """What of the strategy is in no checkpoint."""

    kind: Literal["checkpoints"]
    left_out: tuple[Text, ...]

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        roster.manifest.update(checkpoints={"not_covered": list(self.left_out)})


class EndMark(Facts):
    """The app is over."""

    kind: Literal["end"]
    raw_ns: Nanoseconds

    def tell(self, log: RoundLog, roster: Roster) -> None:  # noqa: ARG002
        """Pass it on."""
        log.end(self.raw_ns)


Mark = (
    RoundMark
    | StepMark
    | HeldMark
    | RefusedMark
    | GatheredMark
    | AbandonedMark
    | MetricsMark
    | ModelMark
    | CheckpointsMark
    | EndMark
)
_MARKS: TypeAdapter[list[Mark]] = TypeAdapter(list[Annotated[Mark, Field(discriminator="kind")]])


def read_marks(prologue: dict[str, Any]) -> list[Mark]:
    """What the ServerApp process tells of its own steps, in order."""
    try:
        return _MARKS.validate_python(prologue.get("marks", []))
    except ValidationError as error:
        raise FactsError(first_problem(error)) from error
