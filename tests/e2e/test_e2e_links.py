"""What a run says of a link is what the link did."""

import pandas as pd
import pytest

from analysis.load import Run

FRAME_BYTES = 1514
SEGMENT_BYTES = 1448
MODEL_BYTES = 727_624 * 4


def uplinks(run: Run) -> pd.DataFrame:
    rows = run["phases"]
    return rows[(rows["phase"] == "uplink") & (rows["payload_bytes"] > MODEL_BYTES)]


def test_uplink_takes_what_the_link_takes(shaped_run: Run) -> None:
    """Each uplink takes at least (payload - queue)/rate, at most 1.5 x (bytes on that medium meanwhile)/rate + 4 RTT."""
    profile = shaped_run.manifest.data["link"]["profile"]
    rate_bps = profile["uplink"]["rate-mbit"] * 1e6
    queue_bits = profile["uplink"]["queue-kb"] * 8e3
    round_trip_s = (profile["uplink"]["delay-ms"] + profile["downlink"]["delay-ms"]) / 1e3
    rows = uplinks(shaped_run)
    assert len(rows) == len(shaped_run["rounds"]) * shaped_run.manifest.data["experiment"]["clients"]
    sharers = ["round", "client"] if profile["medium"] == "dedicated" else ["round"]
    bits_meanwhile = rows.groupby(sharers)["payload_bytes"].transform("sum") * 8 * FRAME_BYTES / SEGMENT_BYTES
    least_s = (rows["payload_bytes"] * 8 - queue_bits) / rate_bps
    assert (rows["duration_s"] + rows["duration_uncertainty_s"] >= least_s).all()
    most_s = 1.5 * bits_meanwhile / rate_bps + 4 * round_trip_s
    assert (rows["duration_s"] - rows["duration_uncertainty_s"] <= most_s).all()


def test_wire_bytes_agree_with_the_interface(shaped_run: Run) -> None:
    """Within 2% every byte that a client's interface counted, in either direction, belongs to a transfer on record."""
    counters = shaped_run.manifest.data["interface_counters"]
    assert "marks" not in shaped_run.manifest.data
    transfers = shaped_run["transfers"]
    for client, counted in counters.items():
        own = transfers[transfers["client"] == client]
        assert own["wire_up_bytes"].sum() == pytest.approx(counted["tx_bytes"], rel=0.02)
        assert own["wire_down_bytes"].sum() == pytest.approx(counted["rx_bytes"], rel=0.02)


def test_wire_bytes_of_a_phase_are_payload_and_headers(shaped_run: Run) -> None:
    """A transfer costs its payload and one header a segment, and no more than retransmissions beside it."""
    rows = uplinks(shaped_run)
    ideal = rows["payload_bytes"] * FRAME_BYTES / SEGMENT_BYTES
    assert (rows["wire_bytes"] >= ideal * 0.995).all()
    assert (rows["wire_bytes"] <= ideal * 1.05).all()


def test_one_way_times_are_inside_the_truth(shaped_run: Run) -> None:
    """Both hosts are this machine, so the true offset is zero: every mapping contains it."""
    samples = shaped_run["clock_samples"]
    assert len(samples) >= 2 * 8
    assert (samples["offset_ns"].abs() <= samples["half_width_ns"]).all()


def test_congestion_control_is_the_one_that_was_asked_for(shaped_run: Run) -> None:
    """Transfers in both directions used cubic, whatever this kernel's default is."""
    assert set(shaped_run["transfers"]["congestion_control"]) == {"cubic"}


def test_what_is_not_emulated_stands_in_the_manifest(shaped_run: Run) -> None:
    """The manifest names the backend, and says in words what it cannot do."""
    link = shaped_run.manifest.data["link"]
    assert link["backend"] in {"netem", "wirefilter", "tbf"}
    assert link["notes"]
    assert shaped_run.manifest.data["paced"] is False
