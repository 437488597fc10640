"""Runs of one configuration are repetitions of each other; those of different ones are kept apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.comparison import by_value, flattened
from analysis.connections import HOSTS, host_settings
from analysis.load import Run
from analysis.measures import link_of

_OF_THE_LINK = ("link", "backend", "profile")
"""Settings that belong to a link: two groups that differ in nothing else may be compared as links."""

_REPORTED_ALONE = ("versions.", "seed", HOSTS)
"""Settings that are named where they differ, and do not split a group: repetitions may well have seeds of their own, and
each link hosts of its own."""

_AT_MOST = 5


@dataclass(frozen=True)
class Group:
    """Runs whose configuration is the same.

    Attributes
    ----------
    label : str
        The link, and what else tells this group from the others: ``5g, clients 8``.
    link : str
    setting : tuple of (str, str)
        Configuration apart from what belongs to the link; equal in groups that differ in their link alone.
    runs : tuple of Run
    """

    label: str
    link: str
    setting: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]

    @property
    def names(self) -> list[str]:
        """Names of its runs."""
        return [run.manifest.run for run in self.runs]


def groups(runs: Sequence[Run]) -> list[Group]:
    """Put runs of one configuration together, in the order in which the runs were given."""
    found: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        key = tuple((name, value) for name, value in _settings(run) if not name.startswith(_REPORTED_ALONE))
        found.setdefault((("link", link_of(run)), *key), []).append(run)
    settings = [dict(key) for key in found]
    differ = {name for each in settings for name in each if len({other.get(name) for other in settings}) > 1}
    made = []
    for each, members in zip(settings, found.values(), strict=True):
        own = {name: value for name, value in each.items() if not name.startswith(_OF_THE_LINK)}
        alike = [other for other in settings if other["link"] == each["link"]]
        told = [name for name in each if name in differ and name != "link" and len({other.get(name) for other in alike}) > 1]
        label = ", ".join([each["link"], *(f"{name.removeprefix('profile.')} {each[name]}" for name in told)])
        made.append(Group(label, each["link"], tuple(sorted(own.items())), tuple(members)))
    return made


def differences(runs: Sequence[Run]) -> list[str]:
    """Name each setting that is not the same in all runs, with its value in each."""
    settings = [(run.manifest.run, dict(_settings(run))) for run in runs]
    return [
        f"{key}: " + ", ".join(f"{value} ({_shortened(names)})" for value, names in values.items())
        for key, values in by_value(settings)
        if not key.startswith("profile")
    ]


def _shortened(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= _AT_MOST else f"{', '.join(names[:_AT_MOST])} and {len(names) - _AT_MOST} more"


def _settings(run: Run) -> Iterator[tuple[str, str]]:
    """Everything that should be the same in runs that are compared, as dotted keys."""
    data = run.manifest.data
    yield from flattened({key: value for key, value in run.manifest.experiment.items() if key not in {"name", "link"}})
    yield from flattened({key: data[key] for key in ("app", "transport", "paced") if key in data})
    yield from host_settings(run).items()
    yield from flattened({"backend": run.manifest.backend or "real", "versions": data.get("versions") or {}})
    yield from flattened((data.get("link") or {}).get("profile") or {}, "profile.")
