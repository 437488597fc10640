"""What stands below a figure: what it shows, and how the runs were made."""

from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.emulation import emulation
from analysis.groups import groups
from analysis.load import Run
from analysis.measures import link_of
from analysis.specification import Figure


def shows(figure: Figure, table: pd.DataFrame, warm_up: int) -> str:
    """Fill the caption of a figure: what is special to it."""
    filled = figure.caption.format(**{str(key): value for key, value in table.attrs.items()})
    return " ".join(f"{filled} {_left_out(warm_up) if figure.leaves_out else ''}".split())


def made(runs: Sequence[Run]) -> str:
    """Tell how many runs there are, of what, over which links, and what of that was emulated, with its limits."""
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
        *emulation(runs),
    ]
    configurations = groups(runs)
    if len(configurations) > len(set(links)):
        sentences.append(
            f"Runs of different configurations are pooled: {'; '.join(group.label for group in configurations)}."
        )
    incomplete = [f"{manifest.run} ({manifest.status})" for manifest in manifests if manifest.status != "complete"]
    if incomplete:
        sentences.append(f"Not complete: {', '.join(incomplete)}.")
    return " ".join(sentences)


def _left_out(warm_up: int) -> str:
    if warm_up < 2:
        return "Warm-up (round 1) left out." if warm_up else "No warm-up left out."
    return f"Warm-up ({warm_up} rounds) left out."


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
