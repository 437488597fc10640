"""The summary on a terminal, readable on 100 columns."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.asymmetry import Asymmetry
from analysis.tables import PHASES, Summary, seconds

_COLUMNS = ("round", *PHASES)


def render(summary: Summary, console: Console) -> None:
    """Print the summary as tables and lines."""
    console.print(_runs_table(summary))
    console.print(_seconds_table(summary))
    console.print(_notes(summary), style="dim")
    if summary.ratios:
        console.print(_ratios_table(summary))
    console.print(_stragglers_table(summary))
    console.print(_links_table(summary))
    for row in summary.runs:
        if row["compression"] != "none":
            errors = ", ".join(
                f"{direction} {row[f'{direction}_compression_error']:.2g}"
                for direction in ("uplink", "downlink")
                if row[f"{direction}_compression_error"] is not None
            )
            text = f"{row['run']}: tensors are compressed ({row['compression']}); relative error: {errors or 'not measured'}"
            console.print(escape(text), soft_wrap=True)
        for each in row["asymmetries"]:
            console.print(escape(f"path of {row['run']}, {Asymmetry(**each)}"), style="dim", soft_wrap=True)
    for line in summary.stamps:
        console.print(escape(f"stamps of {line}"), style="dim", soft_wrap=True)
    if summary.differences:
        console.print("the runs differ in more than their link:", style="yellow")
    for line in summary.differences:
        console.print(escape(f"  {line}"), soft_wrap=True)
    for line in summary.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(line)}", soft_wrap=True)


def _notes(summary: Summary) -> str:
    rounds = {0: "No warm-up round was left out", 1: "Round 1 of each run was left out (warm-up)"}.get(
        summary.warm_up, f"The first {summary.warm_up} rounds of each run were left out (warm-up)"
    )
    estimates = [each for group in summary.groups for each in group["estimates"].values() if each]
    estimates += [pair["estimate"] for pair in summary.ratios]
    methods = {each["method"] for each in estimates if each["low"] is not None}
    several = any(len(group["runs"]) > 1 for group in summary.groups)
    interval = (
        f"95%: interval over runs, each of which counts as one value ({'; '.join(sorted(methods))})."
        if several
        else "One run of each configuration: no interval can be given, repeat the runs."
    )
    return (
        f"{rounds}. mean: geometric mean of the runs' means over clients and rounds. {interval} clock ±: by how much the "
        "clocks alone, with stamps behind a lost packet, may have put the mean wrong (Mbit/s: each transfer), which "
        "repetition does not narrow. median, p95, max: over clients and "
        "rounds. A round ends when the new model is ready; shares are of rounds in which all clients replied."
    )


def _runs_table(summary: Summary) -> Table:
    table = Table(title="Runs", title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in ("run", "link", "status", "rounds", "clients", "accuracy", "backend", "paced"):
        table.add_column(name, justify="right" if name in {"rounds", "clients", "accuracy"} else "left", overflow="fold")
    for row in summary.runs:
        table.add_row(
            escape(row["run"]),
            escape(row["link"]),
            row["status"],
            str(row["rounds"]),
            str(row["clients"]),
            "-" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
            escape(row["backend"] or "real"),
            "yes" if row["paced"] else "no",
            style="" if row["status"] == "complete" else "red",
        )
    for path in summary.refused:
        table.add_row(escape(Path(path).name), "", "not used", style="red")
    return table


def _table(title: str, first: str, *columns: str, left: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    return table


def _seconds_table(summary: Summary) -> Table:
    table = _table("Seconds of a round", "", *_COLUMNS, "uplink share")
    for group in summary.groups:
        estimates = [group["estimates"].get(f"{name}_s") for name in _COLUMNS]
        share = group["estimates"].get("uplink_share")
        count = 0 if estimates[0] is None else estimates[0]["runs"][0]  # runs without a whole round have no value
        name = f"[bold]{escape(group['label'])}[/bold] {count} run{'' if count == 1 else 's'}"
        table.add_row(name, *(seconds(each and each["value"]) for each in estimates), _percent(share, "value"))
        if count > 1:
            for end in ("low", "high"):
                cells = (seconds(each and each[end]) for each in estimates)
                table.add_row(f"  95% {end}", *cells, _percent(share, end), style="dim")
        table.add_row("  clock ±", *map(_clock, estimates), _percent_clock(share), style="dim")
        for figure in ("median", "p95", "max"):
            cells = (seconds(group["phases"].get(name, {}).get(f"{figure}_s")) for name in _COLUMNS)
            table.add_row(f"  {figure}", *cells, "", style="dim")
    return table


def _ratios_table(summary: Summary) -> Table:
    table = _table("How many times as long", "", "ratio", "95% over runs", "clocks alone", "runs")
    for pair in summary.ratios:
        estimate = pair["estimate"]
        low, high = (estimate[f"systematic_{end}"] for end in ("low", "high"))
        clocks = "one clock" if low == high else f"{low:.3g} to {'no bound' if high is None else f'{high:.3g}'}"
        over_runs = "none: one run" if estimate["low"] is None else f"{estimate['low']:.3g} to {estimate['high']:.3g}"
        name = f"{pair['slower']} {pair['phase']} over {pair['faster']}'s"
        runs = " and ".join(map(str, estimate["runs"]))
        table.add_row(escape(name), f"{estimate['value']:.3g}", over_runs, clocks, runs)
    return table


def _stragglers_table(summary: Summary) -> Table:
    table = _table(
        "Last in a round", "run", "most often", "in phase", "margin s", "again", "kind", "others idle s", "unexplained s"
    )
    for row in summary.runs:
        last = row["straggler"]
        beside = [seconds(row["idle_s"]), seconds(row["unexplained_s"])]
        if last is None:
            table.add_row(escape(row["run"]), "-", "-", "-", "-", "-", *beside)
            continue
        again = "-" if last["persistence"] is None else f"{last['persistence']:.0%}"
        who = f"{escape(last['client'])} {last['share']:.0%}"
        table.add_row(escape(row["run"]), who, last["phase"], seconds(last["margin_s"]), again, last["kind"], *beside)
    return table


def _links_table(summary: Summary) -> Table:
    target = "-" if summary.target_accuracy is None else f"{summary.target_accuracy:g}"
    table = _table(
        "Links and learning", "run", "down Mbit/s", "of capacity", "up Mbit/s", "of capacity", f"s to accuracy {target}"
    )
    for row in summary.runs:
        cells: list[str] = []
        for direction in ("downlink", "uplink"):
            found = next((each for each in row["carried"] if each["direction"] == direction), None)
            cells.append("-" if found is None else _goodput(found))
            used = None if found is None else found["utilisation"]
            cells.append("-" if used is None or found is None else f"{used:.0%} of {found['capacity_bps'] / 1e6:.3g}")
        table.add_row(escape(row["run"]), *cells, seconds(row["target_s"]))
    return table


def _goodput(found: dict[str, Any]) -> str:
    """Mbit/s, and by how much the clocks alone may have put it wrong."""
    clock_bps = found["goodput_clock_bps"]
    return f"{found['goodput_bps'] / 1e6:.3g} ± {'no bound' if clock_bps is None else f'{clock_bps / 1e6:.2g}'}"


def _clock(estimate: dict[str, Any] | None) -> str:
    """The larger distance at which the clocks may leave the value; blank within one host."""
    if estimate is None or estimate["systematic_low"] == estimate["systematic_high"]:
        return ""
    return seconds(max(estimate["systematic_high"] - estimate["value"], estimate["value"] - estimate["systematic_low"]), 2)


def _percent(share: dict[str, Any] | None, which: str) -> str:
    return "-" if share is None or share[which] is None else f"{share[which]:.1%}"


def _percent_clock(share: dict[str, Any] | None) -> str:
    return "" if share is None else f"{share['systematic_high'] - share['value']:.2%}"
