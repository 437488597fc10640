"""What waited in the SuperLink during a run, from its run folder."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.derive import derive
from analysis.load import load_run
from fltestbed.bench.timeline import phase_means


@dataclass(frozen=True)
class Waiting:
    """The SuperLink's load in one run.

    Attributes
    ----------
    most_bytes : int
        Most bytes of messages that were in it at once: the round's model, each response that is under way, each reply from
        its first byte to the moment when the ServerApp holds it.
    message_bytes : int
        Payload of one reply.
    phase_s : dict of str to list of float
        Mean over clients of each phase, one a counted round.
    """

    most_bytes: int
    message_bytes: int
    phase_s: dict[str, list[float]]


def read_waiting(folder: Path, all_rounds: int) -> Waiting:
    """Read a run folder of the benchmark; the first and the last of `all_rounds` count for memory, not for phases."""
    run = derive(load_run(folder))
    transfers, timeline = run["transfers"], run["timeline"]
    down, up = (transfers[transfers["direction"] == direction] for direction in ("downlink", "uplink"))
    held = timeline[timeline["phase"] == "collect"].set_index("message_id")["end_raw_ns"]
    replies = up.set_index("message_id")
    message_bytes = int(up["payload_bytes"].median())
    return Waiting(
        most_bytes=int(down["payload_bytes"].median()) + most_at_once(pd.concat([
            _stays(down["server_start_raw_ns"], down["server_end_raw_ns"], down["payload_bytes"]),
            _stays(replies["server_start_raw_ns"], held.reindex(replies.index), replies["payload_bytes"]),
        ])),
        message_bytes=message_bytes,
        phase_s=phase_means(run["rounds"], all_rounds),
    )  # fmt: skip


def _stays(start: "pd.Series[int]", end: "pd.Series[int]", size: "pd.Series[int]") -> pd.DataFrame:
    return pd.DataFrame({"start": start, "end": end, "bytes": size})


def most_at_once(stays: pd.DataFrame) -> int:
    """The largest sum of `bytes` over stays that overlap; one that ends when another starts does not overlap it.

    Parameters
    ----------
    stays : DataFrame
        Columns `start` and `end` (of one clock) and `bytes`.
    """
    comes = pd.DataFrame({"at": stays["start"], "bytes": stays["bytes"]})
    goes = pd.DataFrame({"at": stays["end"], "bytes": -stays["bytes"]})
    steps = pd.concat([goes, comes]).dropna().sort_values("at", kind="stable")
    return int(steps["bytes"].cumsum().max()) if len(steps) else 0
