"""Who was missing in a run: events.csv, one line a client."""

from collections.abc import Iterator

import pandas as pd

from analysis.load import Run


def absence_warnings(run: Run) -> Iterator[str]:
    """Yield one line for every client that a round went on without: in how many rounds, in which phases and with which
    symptoms, the most frequent first, and how often it came back; and one for rounds that were abandoned.
    """
    if "events.csv" not in run.tables:
        return
    events = run["events"]
    missing = events[events["event"] == "missing"]
    for client, rows in missing.groupby("client", sort=True, observed=True):
        rounds = rows["round"].nunique()
        seen = (rows["phase"].fillna("no phase") + ": " + rows["symptom"].fillna("nothing seen")).value_counts()
        times = ", ".join(f"{what} ({count} times)" if count > 1 else str(what) for what, count in seen.items())
        yield f"{client} was missing in {_rounds(rounds, rows)}: {times}{_back(events[events['client'] == client])}"
    abandoned = events[events["event"] == "abandoned"]
    if len(abandoned):
        numbers = ", ".join(str(number) for number in abandoned["round"].drop_duplicates())
        yield f"abandoned for want of replies, so the model stayed as it was: round {numbers}"


def _rounds(count: int, rows: pd.DataFrame) -> str:
    if count == 1:
        return f"round {rows['round'].iloc[0]}"
    return f"{count} rounds ({rows['round'].min()} to {rows['round'].max()})"


def _back(events: pd.DataFrame) -> str:
    """Whether the client was there again after its last absence."""
    last = events.index[events["event"] == "missing"].max()
    after = events[events.index > last]
    back = after[after["event"] == "returned"]
    if back.empty:
        return "" if events.loc[last, "symptom"] == "error reply" else "; it did not come back"
    return f"; back after {back['duration_s'].iloc[0]:.3g} s"
