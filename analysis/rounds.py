"""From phases to one row a client and round, and from those to one row a round.

A *round* starts with its first `configure` phase and ends when its last aggregation is done. A client's reply is *held* when
its last `collect` ends: then the ServerApp has it. Replies that never were held leave `total_s` and `margin_s` empty.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.client_rows import CLIENT_PHASES, ClientRows, added
from analysis.load import conform
from fltestbed.measure.derived import CLIENTS_TABLE, ROUNDS_TABLE
from fltestbed.measure.schema import AGGREGATE_OVERLAP, ROUND_TIME, SERVER_PHASES

__all__ = ["ACCURACY_NAMES", "CLIENT_PHASES", "LOSS_NAMES", "clients", "global_metric", "rounds"]

LOSS_NAMES = ("loss", "test-loss", "test_loss", "eval_loss", "validation-loss", "validation_loss")
ACCURACY_NAMES = ("accuracy", "test-accuracy", "test_accuracy", "eval_acc", "eval_accuracy", "validation-accuracy")
"""What apps call the two metrics, best first: a test on held-out data before a validation."""

_KEY = ["round", "client"]


def clients(timeline: pd.DataFrame, transfers: pd.DataFrame) -> pd.DataFrame:
    """Make clients.csv: one row a client and round.

    `total_s` runs from the round's start until the reply is held; `unexplained_s` is what is left of it after all phases
    that ended by then: the client's own, and the server's where a round has a second message. `connect_s` is 0 where an
    accepted client kept its connection; any other phase without a row, or without stamps, is empty and so part of
    `unexplained_s`.
    """
    rows = ClientRows.of(timeline)
    if not len(rows.index):
        return conform(pd.DataFrame(), CLIENTS_TABLE)
    table = pd.DataFrame({"run": rows.first("run"), "link": rows.first("link")}, index=rows.index)
    durations, uncertainties = rows.sums("duration_s"), rows.sums("duration_uncertainty_s")
    held = pd.Series(rows.held_ns(), index=rows.index)
    table["status"] = pd.array(rows.statuses(held.notna().to_numpy()), dtype="string")
    kept_connection = (table["status"] == "ok").to_numpy(dtype=bool) & (rows.counts("connect") == 0)
    durations["connect"] = durations["connect"].mask(kept_connection, 0.0)
    for phase in CLIENT_PHASES:
        table[f"{phase}_s"] = durations[phase]
    for direction in ("downlink", "uplink"):
        table[f"{direction}_uncertainty_s"] = uncertainties[direction]
        table[f"{direction}_goodput_bps"] = rows.goodput_bps(direction)

    start = _round_start_ns(timeline).reindex(table.index.get_level_values("round")).set_axis(table.index)
    table["total_s"] = (held - start).astype("float64") / 1e9
    table["unexplained_s"] = table["total_s"] - rows.before(held) - _servers_before_s(timeline, held)
    table["margin_s"] = (held.groupby("round").transform("max") - held).astype("float64") / 1e9
    return conform(table.join(_of_transfers(rows, transfers)).reset_index(), CLIENTS_TABLE)


def rounds(clients: pd.DataFrame, timeline: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Make rounds.csv: one row a round, round 0 too where anything is known of it.

    Means and maxima are over the clients whose reply was accepted. `ended_in_phase` is the phase in which the last client's
    time exceeds the median of the others' by most; it is empty when there are no others. `aggregate_overlap_s` is 0
    where metrics.csv tells of no aggregation before the last reply.
    """
    accepted = clients[clients["status"] == "ok"]
    numbers = pd.concat(
        [timeline["round"], clients["round"], global_metric(metrics, ACCURACY_NAMES)["round"], _unmeasured(metrics)["round"]]
    ).dropna()
    table = pd.DataFrame(index=pd.Index(np.sort(numbers.unique()), name="round"))
    names = [name for frame in (timeline, metrics) for name in frame["run"].dropna().head(1)]
    table["run"] = names[0] if names else pd.NA

    servers = timeline[timeline["client"].isna()]
    aggregations = servers[servers["phase"] == "aggregate"]
    ready_ns = aggregations.groupby("round")["end_ns"].max()
    table["duration_s"] = ((ready_ns - _round_start_ns(timeline)).astype("float64") / 1e9).reindex(table.index)
    table["duration_s"] = table["duration_s"].fillna(_unmeasured(metrics).groupby("round")["value"].max())
    by_round = accepted.groupby("round")
    for phase in CLIENT_PHASES:
        table[f"{phase}_mean_s"] = by_round[f"{phase}_s"].mean()
        table[f"{phase}_max_s"] = by_round[f"{phase}_s"].max()
    for phase in SERVER_PHASES:
        table[f"{phase}_s"] = servers[servers["phase"] == phase].groupby("round")["duration_s"].sum(min_count=1)
    # An app's own metrics of the server have no message type.
    of_server = metrics[metrics["client"].isna()]
    overlaps = of_server[
        of_server["metric"].eq(AGGREGATE_OVERLAP) & of_server["source"].eq("server") & of_server["message_type"].notna()
    ]
    overlap_s = overlaps.groupby("round")["value"].sum().reindex(table.index, fill_value=0.0)
    table["aggregate_overlap_s"] = overlap_s.where(table["aggregate_s"].notna())
    table = table.join(_who_ended(accepted))
    for name, candidates in (("loss", LOSS_NAMES), ("accuracy", ACCURACY_NAMES)):
        table[name] = global_metric(metrics, candidates).set_index("round")["value"]
    replies = clients.assign(accepted=clients["status"] == "ok").groupby("round")["accepted"]
    table["clients_selected"], table["clients_replied"] = replies.size().astype("Int64"), replies.sum().astype("Int64")
    table["clients_missing"] = table["clients_selected"] - table["clients_replied"]
    return conform(table.reset_index(), ROUNDS_TABLE)


def _unmeasured(metrics: pd.DataFrame) -> pd.DataFrame:
    """Seconds of rounds of which start and end alone were taken."""
    return metrics[metrics["metric"].eq(ROUND_TIME) & metrics["source"].eq("server") & metrics["message_type"].isna()]


def global_metric(metrics: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return the global model's value of a metric: one row a round with `round`, `value`, `time_s`.

    The server's own evaluation before the clients' aggregate, then the earlier of `names`, then the latest row.
    """
    rows = metrics[metrics["client"].isna()]
    rows = rows[rows["metric"].isin(names) & rows["round"].notna()]
    source = rows["source"].map({"server": 0, "aggregate": 1}).fillna(2)
    name = rows["metric"].map({name: place for place, name in enumerate(names)})
    ranked = rows.assign(source_rank=source.to_numpy(), name_rank=name.to_numpy(), late=-rows["time_s"])
    best = ranked.sort_values(["round", "source_rank", "name_rank", "late"], kind="stable").drop_duplicates("round")
    return best[["round", "value", "time_s"]].reset_index(drop=True)


def _round_start_ns(timeline: pd.DataFrame) -> "pd.Series[int]":
    """Start of each round's first configure phase, from the run's zero."""
    return timeline.loc[timeline["phase"] == "configure", ["round", "start_ns"]].groupby("round")["start_ns"].min()


def _servers_before_s(timeline: pd.DataFrame, held_ns: "pd.Series[int]") -> "pd.Series[float]":
    """Seconds of the server's phases that ended before each client's reply was held: a round may have two messages."""
    servers = timeline.loc[timeline["client"].isna(), ["round", "end_ns", "duration_s"]].dropna()
    before_s = pd.Series(0.0, held_ns.index)
    for _, each in servers.groupby(servers.groupby("round").cumcount()):  # the first of every round, the second...
        found = each.set_index("round").reindex(held_ns.index.get_level_values("round")).set_axis(held_ns.index)
        before_s += found["duration_s"].where((found["end_ns"] <= held_ns).fillna(False), 0.0)
    return before_s


def _of_transfers(rows: ClientRows, transfers: pd.DataFrame) -> pd.DataFrame:
    """Client views, round trip and retransmissions of each client and round."""
    place, size = rows.places(transfers), len(rows.index)
    whole = transfers["status"].eq("ok").fillna(False).to_numpy(dtype=bool)
    start_ns = transfers["client_start_raw_ns"]
    columns = {"retransmissions": added(place, _floats(transfers["retransmissions"]), size)}
    for direction, end in (("downlink", "client_end_raw_ns"), ("uplink", "client_response_raw_ns")):
        own = np.where(whole & transfers["direction"].eq(direction).fillna(False), place, -1)
        columns[f"{direction}_client_view_s"] = added(own, _floats(transfers[end] - start_ns) / 1e9, size)
    rtt_s = _floats(transfers["rtt_s"])
    told = (own >= 0) & ~np.isnan(rtt_s)
    columns["rtt_s"] = np.full(size, np.nan)
    columns["rtt_s"][own[told]] = rtt_s[told]  # of several uplinks the last one's
    return pd.DataFrame(columns, rows.index)


def _floats(column: "pd.Series[Any]") -> NDArray[np.float64]:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _who_ended(accepted: pd.DataFrame) -> pd.DataFrame:
    """Name the last client of each round, the phase that made it last, and by how much."""
    in_order = accepted.dropna(subset=["margin_s"]).sort_values(["round", "margin_s"], kind="stable")
    last = in_order.drop_duplicates("round").set_index("round")
    others = in_order[in_order.duplicated("round")]
    phases = [phase for phase in CLIENT_PHASES if phase != "wait"]
    usual = others.groupby("round")[[f"{phase}_s" for phase in phases]].median().fillna(0.0)
    excess = (last[usual.columns] - usual).set_axis(phases, axis="columns").dropna(how="all")
    return pd.DataFrame(
        {
            "ended_by": last["client"],
            "ended_in_phase": excess.idxmax(axis="columns").astype("string"),
            "ended_margin_s": others.groupby("round")["margin_s"].min(),
        }
    )
