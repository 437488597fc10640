"""What was emulated, in sentences for captions: links, strangers' traffic and pace, and what the emulation could not do."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.load import Run
from analysis.measures import link_of

_MEDIA = {
    "shared_tdd": "one rate per direction for all clients",
    "half_duplex": "one budget of air time for all clients and both directions",
    "dedicated": "a rate for each client",
}
_AT_MOST = 3


def emulation(runs: Sequence[Run]) -> list[str]:
    """One sentence for each thing that was emulated, or was not, and of which runs where it was not of all of their link."""
    sentences = [
        *_gathered({run.manifest.run: _link(run) for run in runs}, runs),
        *_gathered({run.manifest.run: _stranger(run) for run in runs}, runs),
        *_gathered({run.manifest.run: _pace(run) for run in runs}, runs),
    ]
    if notes := limits(runs):
        numbered = "; ".join(f"({number}) {note}" for number, note in enumerate(notes, 1))
        sentences.append(f"Limits of the emulation: {numbered}.")
    return sentences


def limits(runs: Sequence[Run]) -> list[str]:
    """What the emulation of the links could not do, each limit once, with its links unless they are all of them."""
    every = {link_of(run) for run in runs}
    notes: dict[str, dict[str, None]] = {}
    for run in runs:
        for note in run.manifest.notes:
            notes.setdefault(note, {})[link_of(run)] = None
    return [note if set(own) == every else f"{note} ({', '.join(own)})" for note, own in notes.items()]


def _gathered(told: Mapping[str, str], runs: Sequence[Run]) -> Iterable[str]:
    """Each text once, with the runs that it is about where other runs of the same links are told another."""
    by_text: dict[str, list[str]] = {}
    for name, text in told.items():
        by_text.setdefault(text, []).append(name)
    link = {run.manifest.run: link_of(run) for run in runs}
    for text, names in by_text.items():
        own = {link[name] for name in names}
        if not text:
            continue
        if all(name in names for name in told if link[name] in own):
            named_in_text = all(text.startswith(f"{each} is ") for each in own)
            where = "" if named_in_text or own == set(link.values()) else f" ({', '.join(sorted(own))})"
        else:
            more = f" and {len(names) - _AT_MOST} more runs" if len(names) > _AT_MOST else ""
            where = f" ({', '.join(names[:_AT_MOST])}{more})"
        yield f"{text}{where}."


def _link(run: Run) -> str:
    name = link_of(run) or "The link"
    if not run.manifest.backend:
        return f"{name} is real"
    profile: Mapping[str, Any] = (run.manifest.data.get("link") or {}).get("profile") or {}
    ways = {way: _direction(profile[way]) for way in ("uplink", "downlink") if profile.get(way)}
    told = [_MEDIA.get(profile.get("medium", ""), "")]
    told += (
        [f"each way {ways['uplink']}"]
        if len(ways) == 2 and len(set(ways.values())) == 1
        else [f"{way} {text}" for way, text in ways.items()]
    )
    told.append("clients' rates vary by a trace" if profile.get("trace") else "")
    about = "; ".join(text for text in told if text)
    return f"{name} is emulated by {run.manifest.backend}" + (f": {about}" if about else "")


def _direction(way: Mapping[str, Any]) -> str:
    delay, jitter, loss = (float(way.get(key) or 0) for key in ("delay-ms", "jitter-ms", "loss-percent"))
    told = [f"{way['rate-mbit']:g} Mbit/s" if way.get("rate-mbit") is not None else ""]
    told.append(f"{delay:g}±{jitter:g} ms" if jitter else f"{delay:g} ms")
    told.append(f"{loss:g}% lost" if loss else "")
    told.append(f"queue {way['queue-kb']:g} kB" if way.get("queue-kb") is not None else "")
    return ", ".join(text for text in told if text)


def _stranger(run: Run) -> str:
    flow = run.manifest.experiment.get("competing-flow")
    if not flow:
        return ""
    rate = f" at {flow['rate-mbit']:g} Mbit/s" if flow.get("rate-mbit") is not None else ""
    way = "in both directions" if flow.get("direction") == "both" else f"in {flow.get('direction', 'uplink')}"
    return f"A stranger's {str(flow.get('protocol', 'tcp')).upper()} flow competes {way}{rate}"


def _pace(run: Run) -> str:
    if not run.manifest.paced:
        return "Training is not paced"
    pacing = run.manifest.experiment.get("pacing") or {}
    for unit in ("epoch", "batch"):
        if seconds := pacing.get(f"seconds-per-{unit}"):
            values = ", ".join(f"{value:g}" for value in seconds)
            whose = " (client by client)" if len(set(seconds)) > 1 else ""
            return f"Training is paced: {'an' if unit == 'epoch' else 'a'} {unit} takes {values} s{whose} at least"
    return "Training is paced"
