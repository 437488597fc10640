"""What the tests look at of findings."""

from collections.abc import Iterable

from fltestbed.check.finding import Finding, Said


def lines(said: Iterable[Said]) -> list[tuple[str, str]]:
    """Check and status of each; "not here" for what was not looked at."""
    return [(each.check, each.status if isinstance(each, Finding) else "not here") for each in said]


def only(said: Iterable[Said]) -> Finding:
    """The one finding."""
    (each,) = said
    assert isinstance(each, Finding)
    return each
