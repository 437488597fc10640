"""A report for a terminal: each figure beside its bar."""

from rich.console import Console
from rich.table import Table

from fltestbed.bench.results import Bar, Report, Setting, Spread


def render(report: Report, console: Console) -> None:
    """Print a report."""
    for line in report.about:
        console.print(line, style="dim", markup=False, highlight=False)
    for setting in report.settings:
        _render_setting(setting, console)
    render_bars(report.bars, console)
    verdict = "all bars hold" if report.holds else "NOT all bars hold"
    console.print(verdict, markup=False, style="green" if report.holds else "red")


def _render_setting(setting: Setting, console: Console) -> None:
    megabytes = setting.model_bytes / 1e6
    title = f"{setting.link}, {setting.size} model: {setting.tensors} tensors, {megabytes:.3g} MB"
    table = Table("contender", "round s", "downlink s", "uplink s", title=title, title_justify="left")
    for name, contender in setting.contenders.items():
        table.add_row(name, _cell(contender.round), _cell(contender.downlink), _cell(contender.uplink))
    console.print()
    console.print(table)
    for note in setting.notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False)
    if setting.phases_s:
        phases = ", ".join(f"{phase} {seconds * 1e3:.1f}" for phase, seconds in setting.phases_s.items() if seconds > 0)
        console.print(f"  a round of bundle, medians in ms: {phases}", style="dim", markup=False, highlight=False)
        idle = f"{setting.turnaround_s * 1e3:.1f} ms at the client, {setting.gap_s * 1e3:.1f} ms between rounds"
        console.print(f"  its connections idle {idle}", style="dim", markup=False, highlight=False)


def render_bars(bars: tuple[Bar, ...], console: Console) -> None:
    """Print figures beside their bars."""
    table = Table("what", "link", "model", "figure", "bar", "", title="bars", title_justify="left")
    for bar in bars:
        limit = "none, shown" if bar.most is None else f"<= {bar.most:.2f}"
        verdict = "" if bar.most is None else "holds" if bar.holds else "missed"
        table.add_row(bar.name, bar.link, bar.size, f"{bar.figure:.3f}", limit, verdict)
    console.print()
    console.print(table)


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median_s:.4f} ({spread.least_s:.4f} to {spread.most_s:.4f}, n={spread.count})"
