"""What a campaign's folder holds already: runs that are complete, and what is left of others.

A complete run is never made again, an incomplete one never overwritten: it is moved to ``NAME-incomplete`` beside the
campaign's folder, under the run's name and what became of it, and stays as readable there as it was.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fltestbed.campaign.schedule import PlannedRun
from fltestbed.differences import differences
from fltestbed.errors import ConfigError
from fltestbed.measure.manifest import read_manifest

State = Literal["complete", "failed", "interrupted", "killed", "unreadable", "to do"]


OF_THE_HOST = ("experiment.server.certificates", "experiment.server.node-keys", "experiment.server.join-timeout-s")
"""Paths that every run has of its own, and how long it waits for its clients: no difference between two runs."""


@dataclass(frozen=True)
class Progress:
    """How far a planned run is.

    Attributes
    ----------
    state : str
        ``to do`` without a folder; ``killed`` when the manifest still says running, ``unreadable`` without a manifest.
    elapsed_s : float or None
        How long a complete run took, with its start and end.
    reason : str
        Why it is not complete, as its manifest says.
    """

    state: State
    elapsed_s: float | None = None
    reason: str = ""


def survey(runs: Iterable[PlannedRun], folder: Path) -> dict[str, Progress]:
    """How far each run is, by its name; what is wrong with any of them in one `ConfigError`."""
    found, problems = {}, []
    for run in runs:
        try:
            found[run.name] = look(run, folder)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def elapsed_by_condition(runs: Iterable[PlannedRun], found: Mapping[str, Progress]) -> dict[str, list[float]]:
    """Seconds that complete runs took, by the label of their condition."""
    elapsed: dict[str, list[float]] = {}
    for run in runs:
        seconds = found[run.name].elapsed_s
        if seconds is not None:
            elapsed.setdefault(run.condition.label, []).append(seconds)
    return elapsed


def look(run: PlannedRun, folder: Path) -> Progress:
    """See how far a run is; `folder` is the campaign's.

    Raises
    ------
    ConfigError
        A complete run of this name was made under another configuration.
    """
    place = folder / run.name
    if not place.exists():
        return Progress("to do")
    try:
        manifest = read_manifest(place)
        status, reason = manifest["status"], str(manifest.get("reason") or "")
    except (OSError, ValueError, KeyError, TypeError):
        return Progress("unreadable", reason="no manifest that can be read")
    if status != "complete":
        known: dict[str, State] = {"failed": "failed", "interrupted": "interrupted"}
        return Progress(known.get(status, "killed"), reason=reason)
    if changed := _differences(run, manifest):
        raise ConfigError(
            f"{place}: was made under another configuration ({'; '.join(changed)}); give the campaign another name, or "
            "move the folder away"
        )
    return Progress("complete", (manifest.get("campaign") or {}).get("elapsed_s"))


def set_aside(run: PlannedRun, folder: Path, state: State) -> Path:
    """Move what is left of an incomplete run out of the way; returns where it is now."""
    aside = folder.with_name(f"{folder.name}-incomplete")
    aside.mkdir(exist_ok=True)
    places = (aside / f"{run.name}-{state}-{number}" for number in itertools.count(1))
    place = next(place for place in places if not place.exists())
    (folder / run.name).rename(place)
    return place


def _differences(run: PlannedRun, manifest: dict[str, Any]) -> list[str]:
    """In what a finished run differs from what is planned now. A key that either does not know is no difference."""
    planned = {"experiment": run.condition.experiment.resolved}
    if run.condition.profile is not None:
        planned["link"] = run.condition.profile.model_dump(mode="json", by_alias=True)
    there = {"experiment": manifest.get("experiment"), "link": (manifest.get("link") or {}).get("profile")}
    return [str(difference) for difference in differences(there, planned) if difference.key not in OF_THE_HOST]
