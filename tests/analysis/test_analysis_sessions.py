"""A run whose server was started again: each round counts once, and the gap is told."""

import json
from pathlib import Path

import pandas as pd

from analysis.derive import derive, derive_for_summary
from analysis.load import load_run
from analysis.sessions import boots, epoch_of_phases
from fltestbed.measure.schema import SESSIONS_TABLE


def break_off(folder: Path, round_: int) -> int:
    """Make it look as if the server had been killed in the middle of a round, which was made again: what the run has of that
    round stands there a second time, earlier, and its messages have other names. Returns how many phases that were.
    """
    start_ns = 0
    manifest = json.loads((folder / "manifest.json").read_text())
    back_ns = 10**9 // 2
    for name in ("phases.csv", "transfers.csv", "metrics.csv"):
        table = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        broken = table[table["round"] == str(round_)].copy()
        if name == "phases.csv":
            at = broken[broken["start_host"] == "server"]["start_raw_ns"].astype("int64")
            start_ns = int(at.min())
            broken = broken.iloc[:-3]
            count = len(broken)
        for column in ("start_raw_ns", "end_raw_ns", "raw_ns"):
            if column in broken:
                stamped = broken[column] != ""
                shifted = broken.loc[stamped, column].astype("int64") - 3600 * 10**9
                broken.loc[stamped, column] = shifted.astype(str)
        if "message_id" in broken:
            broken["message_id"] = broken["message_id"].where(broken["message_id"] == "", "broken-" + broken["message_id"])
        pd.concat([table, broken]).to_csv(folder / name, index=False)
    sessions = [
        {"start_raw_ns": manifest["zero_raw_ns"], "after_round": None, "boot_id": "a"},
        {"start_raw_ns": start_ns - back_ns, "after_round": round_ - 1, "boot_id": "a"},
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sessions": sessions}))
    row = {"run": manifest["run"], "session": 2, "first_round": round_, "gap_s": 12.34, "same_boot": 1, "before": "killed"}
    pd.DataFrame([row], columns=list(SESSIONS_TABLE.header)).to_csv(folder / "sessions.csv", index=False)
    return count


def test_a_round_that_was_made_again_counts_once(folder: Path) -> None:
    """The derived tables are those of the run without the broken attempt, for `plot` and for `summary`; one warning says
    what happened and how many rows were left out.
    """
    whole = derive(load_run(folder))
    count = break_off(folder, 3)
    run = derive(load_run(folder))
    for name in ("clients", "rounds"):
        pd.testing.assert_frame_equal(run[name], whole[name])
    (told,) = [warning for warning in run.warnings if "started again" in warning]
    assert told == (
        f"the server was started again after round 2, after 12.3 s without one (it was killed); {count} phases of a round "
        "that was made again are left out"
    )
    (summarised,) = derive_for_summary([folder])
    pd.testing.assert_frame_equal(summarised["rounds"], whole["rounds"])


def test_boots_part_the_clock_mappings() -> None:
    """A session on a host that was started again begins another epoch; a phase belongs to that of its message."""
    sessions = [{"start_raw_ns": start, "boot_id": boot} for start, boot in ((0, "a"), (10, "a"), (20, "b"))]
    assert boots(sessions) == [20]
    phases = pd.DataFrame({
        "start_host": ["server", "pi", "server", "pi", "server"],
        "start_raw_ns": pd.array([5, 900, 25, 1, 19], dtype="Int64"),
        "message_id": ["m", "m", "n", "n", None],
    })  # fmt: skip
    assert list(epoch_of_phases(phases, [20])) == [0, 0, 1, 1, 0]
