"""What a benchmark found: spreads, bars, and the whole report as plain data."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from fltestbed.errors import ConfigError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Spread:
    """Seconds of something that was measured several times.

    Attributes
    ----------
    median_s, least_s, most_s : float
        Over all values.
    count : int
        How many values.
    repetitions_s : tuple of float
        The median of each repetition, in the order in which they ran: how much the machine itself varied.
    """

    median_s: float
    least_s: float
    most_s: float
    count: int
    repetitions_s: tuple[float, ...]

    @classmethod
    def of(cls, repetitions: list[list[float]]) -> "Spread | None":
        """Spread of all values of all repetitions; None without a value."""
        values = [value for repetition in repetitions for value in repetition]
        if not values:
            return None
        medians = tuple(median(repetition) for repetition in repetitions if repetition)
        return cls(median(values), min(values), max(values), len(values), medians)


@dataclass(frozen=True)
class Bar:
    """A figure and what it may be at most; `most` is None for one that is shown and not judged."""

    name: str
    link: str
    size: str
    figure: float
    most: float | None

    @property
    def holds(self) -> bool:
        """Whether the figure is within its bar."""
        return self.most is None or self.figure <= self.most


@dataclass(frozen=True)
class Contender:
    """What one contender took. None where it does not say: `raw` has no rounds, others no transfers."""

    round: Spread | None
    downlink: Spread | None
    uplink: Spread | None


@dataclass(frozen=True)
class Setting:
    """One model on one link.

    Attributes
    ----------
    notes : tuple of str
        What the link is, and what of it is not emulated.
    down_bytes, up_bytes : int
        Payload of one message and of one reply, as bundle and raw move them.
    turnaround_s, gap_s : float
        How long a connection idles at the client and between rounds, in bundle and in raw: medians of the repetitions.
    phases_s : dict of str to float
        Where a round of bundle goes: the median of each phase, as a mean over clients.
    contenders : dict of str to Contender
    """

    link: str
    notes: tuple[str, ...]
    size: str
    tensors: int
    model_bytes: int
    down_bytes: int
    up_bytes: int
    turnaround_s: float
    gap_s: float
    phases_s: dict[str, float]
    contenders: dict[str, Contender]


@dataclass(frozen=True)
class Report:
    """All that one command measured."""

    benchmark: str
    schema_version: int
    about: tuple[str, ...]
    host: dict[str, Any]
    versions: dict[str, str]
    settings: tuple[Setting, ...]
    bars: tuple[Bar, ...]

    @property
    def holds(self) -> bool:
        """Whether all bars hold."""
        return all(bar.holds for bar in self.bars)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; each bar says whether it holds."""
        bars = [asdict(bar) | {"holds": bar.holds} for bar in self.bars]
        return asdict(self) | {"bars": bars, "holds": self.holds}


class Findings(Protocol):
    """What any benchmark reports."""

    @property
    def holds(self) -> bool:
        """Whether all bars hold."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""


def write_json(report: Findings, path: Path) -> None:
    """Write a report.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    try:
        path.write_text(json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written: {error.strerror}; give another file") from error
