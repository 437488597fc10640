"""A campaign under way: one process a run, one run after the other, whatever becomes of each."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from fltestbed.campaign.estimate import estimate
from fltestbed.campaign.listing import duration, total
from fltestbed.campaign.plan import Plan
from fltestbed.campaign.resume import Progress, elapsed_by_condition, look, set_aside, survey
from fltestbed.campaign.schedule import PlannedRun, manifest_entry, schedule
from fltestbed.children import end, start
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.errors import RunFolderError, TestbedError
from fltestbed.lab.run import missing_parts
from fltestbed.measure.manifest import amend
from fltestbed.scratch import scratch_folder

END_TIMEOUT_S = 6.0


def run_campaign(plan: Plan, folder: Path, console: Console, clock: Clock = SYSTEM_CLOCK) -> list[Path]:
    """Make every run that is not complete yet, in the planned order; returns the run folders in that order.

    Parameters
    ----------
    plan : Plan
    folder : Path
        The campaign's folder; runs are folders in it.
    console : Console
        Where progress goes.
    clock : Clock
        Times the runs, for estimates.

    Raises
    ------
    ConfigError
        A complete run in `folder` was made under another configuration; nothing was started.
    RunFolderError
        The folder cannot be made, or another campaign is at work in it.
    TestbedError
        Every run was tried and some are missing; the message says which and why.
    KeyboardInterrupt
        It was interrupted; the run under way has ended in good order.
    """
    runs = schedule(plan)
    with _sole_use(folder):
        found = survey(runs, folder)
        missing: dict[str, str] = {}
        for run in runs:
            if found[run.name].state == "complete":
                continue
            if found[run.name].state != "to do":
                console.print(
                    f"{run.name} was {found[run.name].state}: kept as {set_aside(run, folder, found[run.name].state)}"
                )
            left = [later for later in runs[run.place - 1 :] if found[later.name].state != "complete"]
            _announce(plan, run, left, found, console)
            found[run.name] = progress = _make(plan, run, folder, clock)
            if progress.state != "complete":
                missing[run.name] = f"{progress.state}{': ' if progress.reason else ''}{progress.reason}"
                console.print(f"{run.name} is missing, {missing[run.name]}; going on", style="red", markup=False)
    for run in runs:
        for host, what in missing_parts(folder / run.name).items():
            console.print(f"{run.name}: of {host} is missing {what}", style="yellow", markup=False, soft_wrap=True)
    if missing:
        names = "; ".join(f"{name} ({why})" for name, why in missing.items())
        raise TestbedError(
            f"{plan.campaign.name}: {len(missing)} of {len(runs)} runs are missing: {names}; "
            "the same command tries them again"
        )
    return [folder / run.name for run in runs]


def _announce(plan: Plan, run: PlannedRun, left: list[PlannedRun], found: Mapping[str, Progress], console: Console) -> None:
    elapsed = elapsed_by_condition(schedule(plan), found)
    seconds = {each.name: estimate(each, elapsed, app=plan.app is not None) for each in left}
    console.rule(f"run {run.place} of {len(found)}: {run.name}")
    condition = run.condition
    facts = f"{condition.link_summary}; {condition.experiment.clients} clients, {condition.experiment.rounds} rounds"
    console.print(facts, markup=False, soft_wrap=True)
    console.print(f"{duration(seconds[run.name])}; {len(left)} runs left, {total(seconds.values())}", markup=False)


def _make(plan: Plan, run: PlannedRun, folder: Path, clock: Clock) -> Progress:
    """Make one run in a process of its own, the command of a person who makes one run."""
    entry = manifest_entry(plan, run)
    start_ns = clock.raw_ns()
    with scratch_folder("campaign") as scratch:
        command = _command(plan, run, folder, scratch, entry)
        process = start(command)
        try:
            status = process.wait()
        except BaseException:
            end([process], END_TIMEOUT_S)  # it writes how it ended
            raise
    if not (folder / run.name).exists():
        return Progress("failed", reason=f"it ended with status {status} and left nothing; its message stands above")
    progress = look(run, folder)
    if progress.state == "complete":
        elapsed_s = (clock.raw_ns() - start_ns) / 1e9
        amend(folder / run.name, campaign=entry | {"elapsed_s": round(elapsed_s, 3)})
        progress = replace(progress, elapsed_s=elapsed_s)
    return progress


def _command(plan: Plan, run: PlannedRun, folder: Path, scratch: Path, entry: dict[str, Any]) -> list[str]:
    """`fltestbed run` with everything that it needs in files of `scratch`."""
    condition = run.condition
    options: dict[str, Any] = {"mode": "json", "by_alias": True, "exclude_none": True}
    experiment, link, campaign = (scratch / name for name in ("experiment.toml", "link.toml", "campaign.json"))
    experiment.write_text(tomli_w.dumps(condition.experiment.model_dump(**options)))
    campaign.write_text(json.dumps(entry))
    command = ["run", str(experiment), "--name", run.name, "--runs", str(folder), "--campaign", str(campaign)]
    if plan.inventory is not None:
        command += ["--link", str(condition.levels["link"]), "--inventory", str(plan.inventory.path)]
    elif condition.profile is not None:
        link.write_text(tomli_w.dumps(condition.profile.model_dump(**options)))
        command += ["--link", str(link), "--backend", plan.campaign.backend]
    return command if plan.app is None else [*command, "--app", str(plan.app)]


@contextlib.contextmanager
def _sole_use(folder: Path) -> Iterator[None]:
    """Make the campaign's folder and hold it: a second campaign there would put runs aside that are under way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made: {error.strerror}; choose another place with --runs") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RunFolderError(f"{folder}: another campaign is at work there; wait for its end") from error
    finally:
        os.close(handle)
