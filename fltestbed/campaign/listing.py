"""What a campaign will do, as text: every run in its order, how far it is and how long it should take."""

import math
from collections.abc import Iterable, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fltestbed.campaign.estimate import Estimate, estimate
from fltestbed.campaign.plan import Plan
from fltestbed.campaign.resume import Progress, elapsed_by_condition
from fltestbed.campaign.schedule import PlannedRun, schedule


def print_listing(plan: Plan, found: Mapping[str, Progress], console: Console) -> None:
    """Print all runs in order; `found` is from `fltestbed.campaign.resume.survey`."""
    runs = schedule(plan)
    elapsed = elapsed_by_condition(runs, found)
    seconds = {run.name: estimate(run, elapsed, app=plan.app is not None) for run in runs}
    campaign = plan.campaign
    console.print(
        f"{campaign.name}: {len(runs)} runs, {len(plan.conditions)} conditions x {campaign.repetitions} repetitions; one "
        f"repetition of each condition is a block, shuffled within (seed {campaign.seed})",
        markup=False,
    )
    for link in dict.fromkeys(condition.link_summary for condition in plan.conditions):
        console.print(f"  {link}", markup=False, soft_wrap=True)
    for reason in plan.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False, soft_wrap=True)
    console.print(_table(runs, found, seconds))
    left = [seconds[run.name] for run in runs if found[run.name].state != "complete"]
    console.print(f"{len(left)} of {len(runs)} runs to make, {total(left)}", markup=False)


def duration(given: Estimate) -> str:
    """One estimate in words."""
    if given.seconds is None:
        return "nothing known of its length"
    return f"about {_clock(given.seconds)}" if given.measured else f"at least {_clock(given.seconds)}"


def total(given: Iterable[Estimate]) -> str:
    """The sum of estimates in words, with what is not known."""
    estimates = list(given)
    known_s = sum(each.seconds or 0.0 for each in estimates)
    unknown = sum(each.seconds is None for each in estimates)
    if unknown == len(estimates) > 0:
        return "of unknown length"
    word = "about" if all(each.measured for each in estimates) else "at least"
    text = f"{word} {_clock(known_s)}"
    return text if not unknown else f"{text} and {unknown} of unknown length"


def _table(runs: Iterable[PlannedRun], found: Mapping[str, Progress], seconds: Mapping[str, Estimate]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("place", "block", "run", "clients", "rounds", "length", "now"):
        table.add_column(name, justify="left" if name in {"run", "length", "now"} else "right", overflow="fold")
    for run in runs:
        experiment, progress = run.condition.experiment, found[run.name]
        table.add_row(
            str(run.place), str(run.repetition), run.name, str(experiment.clients), str(experiment.rounds),
            duration(seconds[run.name]), _now(progress), style="dim" if progress.state == "complete" else "",
        )  # fmt: skip
    return table


def _now(progress: Progress) -> str:
    if progress.state in ("complete", "to do"):
        return progress.state
    return f"{progress.state}: will be put aside and made again"


def _clock(seconds: float) -> str:
    """Seconds up to two minutes, then minutes, then hours and minutes."""
    if seconds < 120:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
