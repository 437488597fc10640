"""The server as a client meets it: port, TLS, key, versions."""

from collections.abc import Generator, Iterator
from typing import Any

from fltestbed.check.finding import Said, error, ok, warning
from fltestbed.client.introduction import Introduction
from fltestbed.errors import ServerNotTrusted, ServerRefused, ServerUnreachable, TestbedError
from fltestbed.measure.host import package_versions, toolkit_versions

SAME_SECOND_S = 2.0
"""A Date header is told in whole seconds."""


def check_arrival(interface: str, introduction: Introduction, timeout_s: float) -> Generator[Said, None, dict[str, Any]]:
    """Reach the server over a proven path, compare clocks, say hello, compare versions; each is tried for `timeout_s`.

    The generator's own value is what the server told to hello, or an empty dictionary.
    A server without a run under way is not there: it has to be started first.
    """
    check = f"server over {interface}"
    try:
        introduction.reach(timeout_s)
    except ServerUnreachable as problem:
        yield error(check, str(problem), "start the server on its host: fltestbed server CONFIG; then check again")
        yield warning("versions", "not compared: no server answers", "check again when the server is up")
        return {}
    except ServerNotTrusted as problem:
        yield error(check, str(problem))
        return {}
    trust = introduction.trust
    how = "without TLS" if trust is None else f"with TLS, dates checked by {trust.describe()['dates_checked_by']}"
    yield ok(check, f"answers {how}")
    yield judge_offset(introduction.key.wall_offset_s)
    try:
        hello = introduction.hello(timeout_s)
    except ServerRefused as problem:
        yield error("admission", str(problem))
        return {}
    except (OSError, TestbedError) as problem:
        yield error("admission", f"no answer to hello: {problem}", "look at the server's terminal")
        return {}
    yield ok("admission", f"run {hello['run']}, {hello['clients']} clients")
    yield from compare_versions(package_versions(), hello["versions"])
    return hello


def judge_offset(offset_s: float) -> Said:
    """The server's wall clock minus this host's."""
    if abs(offset_s) <= SAME_SECOND_S:
        return ok("clock beside the server's", "within 2 s")
    days = f" ({abs(offset_s) / 86400:.1f} days)" if abs(offset_s) > 86400 else ""
    return warning(
        "clock beside the server's", f"{abs(offset_s):.0f} s {'behind' if offset_s > 0 else 'ahead'}{days}",
        "the client joins all the same, by the server's clock; to mend it: run chrony against the radio host",
    )  # fmt: skip


def compare_versions(own: dict[str, str], theirs: dict[str, Any]) -> Iterator[Said]:
    """Fltestbed and flwr have to be the same on both sides; of the others it is told."""
    needed = toolkit_versions()
    unlike = [
        f"{name} {own.get(name)} here, {theirs.get(name)} there" for name in needed if own.get(name) != theirs.get(name)
    ]
    if unlike:
        yield warning("versions", "; ".join(unlike), "the server lets them in (mixed-versions); install the same on both")
        return
    others = [
        f"{name} {own.get(name, 'missing')} here, {theirs.get(name, 'missing')} there"
        for name in sorted({*own, *theirs} - {*needed}) if own.get(name) != theirs.get(name)
    ]  # fmt: skip
    same = ", ".join(f"{name} {version}" for name, version in needed.items())
    yield ok("versions", f"{same} on both" + (f"; {'; '.join(others)}" if others else ""))
