"""A campaign, described by one TOML file: an experiment, the factors under which it is run, and how often.

The runs are the cross product of the factors' levels, times the repetitions. A combination that cannot be (a competing flow
on a medium that nobody shares, an uplink/downlink ratio where both directions draw on one budget) is left out and said.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, StrictBool, field_validator, model_validator

from fltestbed.campaign.bandwidth import Change, change_profile
from fltestbed.config import CompetingFlow, Experiment
from fltestbed.config_file import NAME_PATTERN, Section, find_config, read_toml, validate
from fltestbed.errors import ConfigError
from fltestbed.lab.inventory import Inventory
from fltestbed.lab.run import check_experiment
from fltestbed.learning.names import check_model_name
from fltestbed.links import LinkProfile, load_link

LONGEST_NAME = 64

EMULATED_FACTORS = ("bandwidth", "bandwidth-mbit", "uplink-downlink-ratio", "competing-flow", "tls")
"""What a real network cannot be told; TLS is a matter of how its hosts were set up."""

T = TypeVar("T")
Several = Annotated[tuple[T, ...], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Level = str | int | float | bool


class Factors(Section):
    """What is varied. A factor that is left out stays as the experiment and the link profile have it."""

    link: Several[str]
    """Shipped profiles, or TOML files relative to the campaign's."""
    clients: Several[Annotated[int, Field(strict=True, ge=1, le=250)]] | None = None
    model: Several[str] | None = None
    transport: Several[Literal["bundle", "objects"]] | None = None
    bandwidth: Several[Positive] | None = None
    """Factors by which all rates of the profile are multiplied."""
    bandwidth_mbit: Several[Positive] | None = None
    """Capacity of uplink and downlink together, split as in the profile; of a half-duplex medium the one budget."""
    uplink_downlink_ratio: Several[Positive] | None = None
    """How that capacity is split: rate of the uplink over rate of the downlink."""
    competing_flow: Several[StrictBool] | None = None
    """Without and with the flow of `[experiment.competing-flow]` through the clients' medium."""
    tls: Several[StrictBool] | None = None

    @field_validator("*", mode="after")
    @classmethod
    def _each_level_once(cls, levels: object) -> object:
        if isinstance(levels, tuple) and (twice := [level for level, count in Counter(levels).items() if count > 1]):
            raise ValueError(f"level {twice[0]!r} stands there twice: give each once, and repetitions for more runs of it")
        return levels

    @model_validator(mode="after")
    def _one_bandwidth(self) -> Self:
        if self.bandwidth is not None and self.bandwidth_mbit is not None:
            raise ValueError("give bandwidth or bandwidth-mbit, not both")
        return self

    def combinations(self) -> Iterator[dict[str, Level]]:
        """Every combination of levels, in the order of the file; keys as in the file, of the given factors alone."""
        given = {key: levels for key, levels in self.model_dump(by_alias=True).items() if levels is not None}
        for levels in itertools.product(*given.values()):
            yield dict(zip(given, levels, strict=True))


class Campaign(Section):
    """A campaign's file."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 1
    """Of the order of the runs; the experiment has its own."""
    repetitions: Annotated[int, Field(strict=True, ge=1, le=1000)] = 5
    """Runs of each combination; below ten, intervals rest on the assumption that times are log-normal."""
    backend: Literal["auto", "netem", "wirefilter", "tbf"] = "auto"
    """How the links are emulated."""
    app: Path | None = None
    """Folder of a Flower app, relative to the campaign's file; None runs the toolkit's own."""
    published: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    """Key of analysis/published.toml: `fltestbed summary` prints those figures beside the measured ones."""
    factors: Factors
    experiment: dict[str, Any] = Field(default_factory=dict)
    """An experiment without its name; factors replace what it says."""


@dataclass(frozen=True)
class Condition:
    """One combination of levels, ready to run.

    Attributes
    ----------
    label : str
        Short and safe as a file name, the same whatever other levels the campaign has.
    levels : dict
        Level of each given factor, keys as in the file; a link by its profile's name.
    experiment : Experiment
    profile : LinkProfile or None
        Rates as changed by the factors; None on real hosts.
    """

    label: str
    levels: dict[str, Level]
    experiment: Experiment
    profile: LinkProfile | None

    @property
    def link_summary(self) -> str:
        """The link in a line."""
        return f"{self.levels['link']}: real hosts" if self.profile is None else self.profile.summary


@dataclass(frozen=True)
class Plan:
    """A campaign that was checked.

    Attributes
    ----------
    campaign : Campaign
    app : Path or None
        Folder of the app, found.
    conditions : tuple of Condition
        What is repeated, in the order of the file.
    left_out : tuple of str
        Combinations that cannot be, each with its reason.
    inventory : Inventory or None
        The hosts that make the runs; None for this machine and emulated links.
    """

    campaign: Campaign
    app: Path | None
    conditions: tuple[Condition, ...]
    left_out: tuple[str, ...]
    inventory: Inventory | None = None


def load_plan(path: Path, inventory: Inventory | None = None) -> Plan:
    """Read and check a campaign: a TOML file, or the name of a shipped one.

    With an inventory the runs are made on its hosts, and its links are the levels of the factor link.

    Raises
    ------
    ConfigError
        Anything in it cannot be used. All problems are in the message, one a line, each with the file and the key.
    """
    file = find_config(path, "campaigns")
    source = str(path)
    campaign = validate(Campaign, read_toml(file), source)
    problems = _Problems()
    if "name" in campaign.experiment:
        problems.add(f"{source}: experiment.name: not here; runs are named after the campaign and its factors")
    if "link" in campaign.experiment:
        problems.add(f"{source}: experiment.link: not here; give factors.link")
    app = None if campaign.app is None else file.parent / campaign.app
    if app is not None and not (app / "pyproject.toml").is_file():
        problems.add(f"{source}: app: {app} is no folder of a Flower app: no pyproject.toml there")
    if inventory is None:
        profiles = _profiles(campaign, file, source, problems)
    else:
        profiles = dict.fromkeys(campaign.factors.link)
        _check_real(campaign, inventory, source, problems)
    problems.collect(
        f"{source}: factors.model", {name: partial(check_model_name, name) for name in campaign.factors.model or ()}
    )
    conditions, left_out = _conditions(campaign, profiles, source, problems)
    if inventory is not None and not problems:
        for condition in conditions:
            link, clients = str(condition.levels["link"]), condition.experiment.clients
            problems.collect(f"{source}: factors", {link: partial(inventory.clients, link, clients)})
    if campaign.app is None and conditions:
        problems.collect(f"{source}: experiment", {"": partial(_check_strategy, conditions[0].experiment)})
    for condition in conditions:
        if len(run_name(condition, campaign.repetitions, campaign.repetitions)) > LONGEST_NAME:
            problems.add(
                f"{source}: factors: the name {condition.label} is too long for a run; shorten names of links or models"
            )
    if not conditions and not problems:
        problems.add(f"{source}: factors: no combination is left: {'; '.join(left_out)}")
    problems.raise_if_any()
    return Plan(campaign, app, tuple(conditions), tuple(left_out), inventory)


def run_name(condition: Condition, repetition: int, repetitions: int) -> str:
    """Name of a run folder: the condition's label and the repetition, padded so that names sort."""
    return f"{condition.label}-r{repetition:0{len(str(repetitions))}d}"


def _profiles(campaign: Campaign, file: Path, source: str, problems: "_Problems") -> dict[str, LinkProfile | None]:
    """The emulated links, by what the campaign calls them."""
    links = {link: partial(load_link, _near(file, link)) for link in campaign.factors.link}
    profiles = problems.collect(f"{source}: factors.link", links)
    for name, count in Counter(profile.name for profile in profiles.values()).items():
        if count > 1:
            problems.add(f"{source}: factors.link: two profiles are named {name}; rename one, results could not tell them")
    return {**profiles}


def _check_real(campaign: Campaign, inventory: Inventory, source: str, problems: "_Problems") -> None:
    """Real links are as they are: what only an emulated one can be told is a mistake."""
    for link in campaign.factors.link:
        if link not in inventory.links:
            problems.add(
                f"{source}: factors.link: {link}: not in {inventory.path}; links there: {', '.join(inventory.links)}"
            )
    for key in EMULATED_FACTORS:
        if getattr(campaign.factors, key.replace("-", "_")) is not None:
            problems.add(f"{source}: factors.{key}: for emulated links alone; on real hosts leave it out")
    experiment = {"": partial(_check_real_experiment, campaign, inventory, source)}
    problems.collect(f"{source}: experiment", experiment)


def _check_real_experiment(campaign: Campaign, inventory: Inventory, source: str) -> None:
    check_experiment(validate(Experiment, {**campaign.experiment, "name": campaign.name}, source), inventory.path)


def _conditions(
    campaign: Campaign, profiles: dict[str, LinkProfile | None], source: str, problems: "_Problems"
) -> tuple[list[Condition], list[str]]:
    conditions, left_out = [], []
    for combination in campaign.factors.combinations():
        if (link := str(combination["link"])) not in profiles:
            continue
        given = profiles[link]
        levels = combination | {"link": link if given is None else given.name}
        try:
            experiment = _experiment(campaign, combination, source)
        except ConfigError as error:
            problems.add(*str(error).splitlines())
            continue
        if given is None:
            conditions.append(Condition(_label(levels), levels, experiment, None))
            continue
        change = Change(*(combination.get(key) for key in ("bandwidth", "bandwidth-mbit", "uplink-downlink-ratio")))
        reason = _impossible(given, change, experiment)
        label = _label(levels)
        if reason is not None:
            left_out.append(f"{label}: {reason}")
            continue
        profile = problems.collect(f"{source}: factors", {label: partial(change_profile, given, change)})
        conditions += [Condition(label, levels, experiment, profile) for profile in profile.values()]
    return conditions, left_out


def _experiment(campaign: Campaign, levels: dict[str, Level], source: str) -> Experiment:
    """The campaign's experiment with the levels of one combination."""
    data = dict(campaign.experiment) | {"name": campaign.name}
    data |= {key: levels[key] for key in ("clients", "transport") if key in levels}
    if "model" in levels:
        data["model"] = {**data.get("model", {}), "name": levels["model"]}
    if "tls" in levels:
        data["server"] = {**data.get("server", {}), "tls": levels["tls"]}
    if levels.get("competing-flow") is True:
        data.setdefault("competing-flow", CompetingFlow().model_dump(by_alias=True, exclude_none=True))
    elif levels.get("competing-flow") is False:
        data.pop("competing-flow", None)
    return validate(Experiment, data, f"{source}: experiment")


def _impossible(profile: LinkProfile, change: Change, experiment: Experiment) -> str | None:
    """Why a link cannot be had under these levels; None if it can."""
    if change.ratio is not None and profile.medium == "half_duplex":
        return "uplink and downlink of a half-duplex medium share one budget, so there is no ratio to set"
    if experiment.competing_flow is not None and profile.medium == "dedicated":
        return "on a dedicated medium a competing flow would have a port of its own and compete with nobody"
    return None


_LABELS: dict[str, Callable[[Any], str]] = {
    "link": str,
    "clients": lambda level: f"c{level}",
    "model": lambda level: str(level).replace(":", "."),
    "transport": str,
    "bandwidth": lambda level: f"x{level:g}",
    "bandwidth-mbit": lambda level: f"{level:g}M",
    "uplink-downlink-ratio": lambda level: f"u{level:g}",
    "competing-flow": lambda level: "flow" if level else "alone",
    "tls": lambda level: "tls" if level else "plain",
}


def _label(levels: dict[str, Level]) -> str:
    return "-".join(_LABELS[key](level) for key, level in levels.items())


def _near(file: Path, link: str) -> Path | str:
    """A path beside the campaign's file; a shipped name as it is."""
    return file.parent / link if link.endswith(".toml") else link


def _check_strategy(experiment: Experiment) -> None:
    from fltestbed.learning.strategies import check_strategy  # noqa: PLC0415  # imports Flower

    check_strategy(experiment)


class _Problems:
    """Messages, each once, in the order in which they came."""

    def __init__(self) -> None:
        self._messages: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def add(self, *messages: str) -> None:
        self._messages |= dict.fromkeys(messages)

    def collect(self, source: str, tasks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Results of the tasks that succeed; the errors of the others are noted."""
        results = {}
        for key, task in tasks.items():
            try:
                results[key] = task()
            except ConfigError as error:
                self.add(*(f"{source}: {line}" for line in str(error).splitlines()))
        return results

    def raise_if_any(self) -> None:
        if self._messages:
            raise ConfigError("\n".join(self._messages))
