"""What stands below a figure: what it shows, and how the runs were made."""

from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.figures import Figure
from analysis.load import Run
from analysis.measures import link_of


def caption(figure: Figure, table: pd.DataFrame, runs: Sequence[Run]) -> str:
    """Fill the caption of a figure and add how the runs were made."""
    text = figure.caption.format(**{str(key): value for key, value in table.attrs.items()})
    return f"{text.strip()} {made(runs)}"


def made(runs: Sequence[Run]) -> str:
    """Tell in a few sentences how many runs there are, of what, over which links, and whether compute was paced."""
    manifests = [run.manifest for run in runs]
    links = [link_of(run) or "an unnamed link" for run in runs]
    per_link = ", ".join(f"{links.count(link)} over {link}" for link in dict.fromkeys(links))
    where = f" over {links[0]}" if len(set(links)) == 1 else f" ({per_link})"
    each = " each" if len(runs) > 1 else ""
    clients = _range(run["clients"]["client"].nunique() for run in runs)
    rounds = _range(int((run["rounds"]["duration_s"].notna() & (run["rounds"]["round"] >= 1)).sum()) for run in runs)
    sentences = [
        f"{_count(str(len(runs)), 'run')}{where}, {_count(clients, 'client')}, {_count(rounds, 'round')}{each}.",
        f"Model: {'; '.join(dict.fromkeys(_model(run) for run in runs))}.",
        *_backends(runs),
    ]
    paced = [manifest.paced for manifest in manifests]
    if all(paced):
        sentences.append("Compute is paced: training takes at least a configured time.")
    elif any(paced):
        names = ", ".join(manifest.run for manifest in manifests if manifest.paced)
        sentences.append(f"Compute is paced (training takes at least a configured time) in {names} alone.")
    else:
        sentences.append("Compute is not paced.")
    incomplete = [f"{manifest.run} ({manifest.status})" for manifest in manifests if manifest.status != "complete"]
    if incomplete:
        sentences.append(f"Not complete: {', '.join(incomplete)}.")
    return " ".join(sentences)


def _model(run: Run) -> str:
    manifest = run.manifest
    size = [] if manifest.parameters is None else [f"{manifest.parameters:,} parameters"]
    size += [] if manifest.model_bytes is None else [f"{manifest.model_bytes / 1e6:.1f} MB"]
    return f"{manifest.model} ({', '.join(size)})" if size else f"{manifest.model} (size not recorded)"


def _backends(runs: Sequence[Run]) -> Iterable[str]:
    """How the links were made; then what the emulation could not do, each limit once."""
    makers: dict[str, dict[str, None]] = {}
    limits: dict[str, dict[str, None]] = {}
    for run in runs:
        link, backend = link_of(run), run.manifest.backend
        makers.setdefault(f"emulated by {backend}" if backend else "real", {})[link] = None
        for note in run.manifest.notes:
            limits.setdefault(note, {})[link] = None
    every = {link_of(run) for run in runs}

    def where(links: dict[str, None]) -> str:
        return "" if set(links) == every else f" ({', '.join(links)})"

    yield f"Links: {', '.join(f'{maker}{where(links)}' for maker, links in makers.items())}."
    if limits:
        yield f"Limits of the emulation: {'; '.join(f'{note}{where(links)}' for note, links in limits.items())}."


def _range(numbers: Iterable[int]) -> str:
    known = sorted(set(numbers))
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _count(number: str, noun: str) -> str:
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"
