"""Link profiles: what an emulated link is like, in TOML.

Rates count Ethernet frames without their checksum (1,514 bytes for 1,460 bytes of TCP payload), as the counters of an
interface do. One Mbit is 10**6 bits and one kB 1,000 bytes.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fltestbed.config_file import NAME_PATTERN, Section, find_config, read_toml, validate

Mbit = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Medium = Literal["shared_tdd", "half_duplex", "dedicated"]


class Direction(Section):
    """One direction of a link."""

    rate_mbit: Mbit
    """Rate of the bottleneck: of the whole medium where it is shared, of each client where it is dedicated."""
    delay_ms: Milliseconds = 0.0
    """One way, from one end of the medium to the other, without the time spent in the queue."""
    jitter_ms: Milliseconds = 0.0
    """The delay varies evenly between `delay_ms` minus and plus this; frames keep their order."""
    loss_percent: Percent = 0.0
    """Frames lost at random, after the bottleneck."""
    queue_kb: Annotated[float, Field(ge=4, allow_inf_nan=False)]
    """Length of the bottleneck's queue; what does not fit is dropped. At least two frames."""

    @model_validator(mode="after")
    def _jitter_within_delay(self) -> Self:
        if self.jitter_ms > self.delay_ms:
            raise ValueError(
                f"jitter-ms {self.jitter_ms:g} is larger than delay-ms {self.delay_ms:g}; "
                "a frame cannot arrive before it is sent"
            )
        return self


class TraceEntry(Section):
    """From `at_s` on, one client's own rate, beside that of the medium. This is what makes radio stragglers."""

    client: Annotated[int, Field(ge=0)]
    """Number of the client, from 0; entries of clients that a run has not are left out."""
    at_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds since the trace was started."""
    uplink_mbit: Mbit | None = None
    """None leaves this direction as it is."""
    downlink_mbit: Mbit | None = None
    repeat_s: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] | None = None
    """Apply the entry again each time so many seconds have passed; None applies it once."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.uplink_mbit is None and self.downlink_mbit is None:
            raise ValueError("gives no rate: give uplink-mbit, downlink-mbit or both")
        return self


class LinkProfile(Section):
    """An emulated link: its two directions and how clients share it."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    medium: Medium
    """`shared_tdd`: a radio cell, one rate per direction for all clients. `half_duplex`: WiFi, one budget of air time for
    all clients and both directions. `dedicated`: a switch port each."""
    interface: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$")]
    """Name of the interface that a client sees."""
    uplink: Direction
    downlink: Direction
    trace: tuple[TraceEntry, ...] = ()

    @property
    def summary(self) -> str:
        """The profile in one line, for people."""
        medium = self.medium.replace("_", " ")
        up, down = self.uplink, self.downlink
        return (
            f"{self.name} ({medium}): {up.rate_mbit:g} Mbit/s up, {down.rate_mbit:g} down, "
            f"{up.delay_ms + down.delay_ms:g} ms round trip"
        )

    @model_validator(mode="before")
    @classmethod
    def _derive_interface(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("name"), str) and "interface" not in data:
            return {**data, "interface": f"{data['name'][:14]}0"}
        return data

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        up, down = self.uplink.rate_mbit, self.downlink.rate_mbit
        if self.medium == "half_duplex" and up != down:
            raise ValueError(
                "half_duplex is one budget for both directions: "
                f"give uplink and downlink the same rate-mbit (now {up:g} and {down:g})"
            )
        return self


def load_link(name_or_path: str | Path) -> LinkProfile:
    """Read and check a link profile: a shipped one by its name (5g, wifi, ethernet), or a TOML file.

    Raises
    ------
    ConfigError
        There is no such profile, or some of its keys are unusable; all problems are in the message.
    """
    file = find_config(name_or_path, "links")
    return validate(LinkProfile, read_toml(file), str(file))
