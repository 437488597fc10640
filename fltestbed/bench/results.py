"""What `fltestbed bench round` found."""

from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from fltestbed.bench.report import Report, show


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


@dataclass(frozen=True, kw_only=True)
class RoundReport(Report):
    """What `fltestbed bench round` measured."""

    benchmark = "round"
    settings: tuple[Setting, ...]

    def render_findings(self, console: Console) -> None:
        """Print a table for each link and model."""
        for setting in self.settings:
            _render_setting(setting, console)


def _render_setting(setting: Setting, console: Console) -> None:
    megabytes = setting.model_bytes / 1e6
    title = f"{setting.link}, {setting.size} model: {setting.tensors} tensors, {megabytes:.3g} MB"
    table = Table("contender", "round s", "downlink s", "uplink s", title=title, title_justify="left")
    for name, contender in setting.contenders.items():
        table.add_row(name, _cell(contender.round), _cell(contender.downlink), _cell(contender.uplink))
    console.print()
    console.print(table)
    for note in setting.notes:
        show(console, f"  {note}", style="dim")
    if setting.phases_s:
        phases = ", ".join(f"{phase} {seconds * 1e3:.1f}" for phase, seconds in setting.phases_s.items() if seconds > 0)
        show(console, f"  a round of bundle, medians in ms: {phases}", style="dim")
        idle = f"{setting.turnaround_s * 1e3:.1f} ms at the client, {setting.gap_s * 1e3:.1f} ms between rounds"
        show(console, f"  its connections idle {idle}", style="dim")


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median_s:.4f} ({spread.least_s:.4f} to {spread.most_s:.4f}, n={spread.count})"
