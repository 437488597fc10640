"""What stands below a figure: what it shows, and how the runs were made."""

from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.groups import groups
from analysis.load import Run
from analysis.measures import link_of
from analysis.specification import Figure

SHARED_MEDIA = ("shared_tdd", "half_duplex")
"""Media of which all clients draw on one rate."""


def shows(figure: Figure, table: pd.DataFrame) -> str:
    """Fill the caption of a figure: what is special to it."""
    return " ".join(figure.caption.format(**{str(key): value for key, value in table.attrs.items()}).split())


def made(runs: Sequence[Run]) -> str:
    """Tell in a few words how many runs there are, of what, over which links, and whether compute was paced."""
    manifests = [run.manifest for run in runs]
    links = [link_of(run) or "an unnamed link" for run in runs]
    per_link = ", ".join(f"{links.count(link)} over {link}" for link in dict.fromkeys(links))
    where = f" over {links[0]}" if len(set(links)) == 1 else f" ({per_link})"
    each = " each" if len(runs) > 1 else ""
    clients = _range(run["clients"]["client"].nunique() for run in runs)
    rounds = _range(int((run["rounds"]["duration_s"].notna() & (run["rounds"]["round"] >= 1)).sum()) for run in runs)
    sentences = [
        f"{_count(str(len(runs)), 'run')}{where}, {_count(clients, 'client')}, {_count(rounds, 'round')}{each};",
        f"{'; '.join(dict.fromkeys(_model(run) for run in runs))}.",
        *_links(runs),
    ]
    configurations = groups(runs)
    if len(configurations) > len(set(links)):
        sentences.append(
            f"Runs of different configurations are pooled: {'; '.join(group.label for group in configurations)}."
        )
    paced = [manifest.paced for manifest in manifests]
    if all(paced):
        sentences.append("Training is paced.")
    elif any(paced):
        sentences.append(
            f"Training is paced in {', '.join(manifest.run for manifest in manifests if manifest.paced)} alone."
        )
    else:
        sentences.append("Training is not paced.")
    incomplete = [f"{manifest.run} ({manifest.status})" for manifest in manifests if manifest.status != "complete"]
    if incomplete:
        sentences.append(f"Not complete: {', '.join(incomplete)}.")
    return " ".join(sentences)


def limits(runs: Sequence[Run]) -> list[str]:
    """What the emulation of the links could not do, each limit once, with its links unless they are all of them."""
    notes: dict[str, dict[str, None]] = {}
    for run in runs:
        for note in run.manifest.notes:
            notes.setdefault(note, {})[link_of(run)] = None
    return [f"{note}{_where(links, runs)}" for note, links in notes.items()]


def _links(runs: Sequence[Run]) -> Iterable[str]:
    """How the links were made, and of which of them concurrent transfers share the rate."""
    makers: dict[str, dict[str, None]] = {}
    shared: dict[str, None] = {}
    for run in runs:
        link, backend = link_of(run), run.manifest.backend
        makers.setdefault(f"emulated by {backend}" if backend else "real", {})[link] = None
        medium = (run.manifest.data.get("link") or {}).get("medium")
        if medium in SHARED_MEDIA and run["clients"]["client"].nunique() > 1:
            shared[link] = None
    yield f"Links: {', '.join(f'{maker}{_where(links, runs)}' for maker, links in makers.items())}."
    if shared:
        yield f"Concurrent transfers share the rate{_where(shared, runs)}."


def _where(links: dict[str, None], runs: Sequence[Run]) -> str:
    return "" if set(links) == {link_of(run) for run in runs} else f" ({', '.join(links)})"


def _model(run: Run) -> str:
    size = run.manifest.model_bytes
    return f"{run.manifest.model}, {'size not recorded' if size is None else _bytes(size)}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _range(numbers: Iterable[int]) -> str:
    known = sorted(set(numbers))
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _count(number: str, noun: str) -> str:
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"
