"""The files that `analysis` derives from the recorded ones, at any time, again and again."""

from fltestbed.measure.schema import PHASES, PHASES_TABLE, SERVER_PHASES
from fltestbed.measure.table import Column, Table, columns_of

_BEST = {
    "start_ns": "start on the server's clock, from the run's zero, with the mapping that all samples of the run allow",
    "duration_s": "end minus start; across two hosts with that mapping, never clamped",
}

TIMELINE_TABLE = Table(
    "timeline.csv",
    "phases.csv again with the best clock mapping that all samples allow.",
    tuple(Column(column.name, column.kind, _BEST.get(column.name, column.meaning)) for column in PHASES_TABLE.columns),
)

CLIENTS_TABLE = Table(
    "clients.csv",
    "One row a client and round.",
    columns_of(
        """
        run name of the run
        round [int] number of the round
        client name of the client
        link name of the client's link
        """
        + "\n".join(
            f"{phase}_s seconds of the phase {phase}; sum over its rows" for phase in PHASES if phase not in SERVER_PHASES
        )
        + """
        downlink_client_view_s downlink on the client's clock alone, around pulling the message
        uplink_client_view_s uplink on the client's clock alone, around pushing the reply
        downlink_uncertainty_s half-width of downlink_s: of the clock mapping, and of the stamp of its end
        uplink_uncertainty_s half-width of uplink_s: of the clock mapping, and of the stamp of its end
        downlink_goodput_bps payload bits a second of the downlink
        uplink_goodput_bps payload bits a second of the uplink
        rtt_s smoothed round-trip time at the end of the uplink
        retransmissions [int] segments retransmitted in uplink and downlink
        total_s from the start of the round to the moment the server holds this client's reply
        unexplained_s total_s minus the phases in between
        margin_s how long before the round's last reply this client's was held; 0 for the last
        status ok, failed, timeout or missing
    """
    ),
)

ROUNDS_TABLE = Table(
    "rounds.csv",
    "One row a round.",
    columns_of(
        """
        run name of the run
        round [int] number of the round
        duration_s from the start of the round until the end of its last aggregation (server evaluation not included)
        """
        + "\n".join(
            f"{phase}_mean_s mean of {phase} over clients\n{phase}_max_s largest {phase} over clients"
            for phase in PHASES
            if phase not in SERVER_PHASES
        )
        + """
        aggregate_s seconds of aggregation after the last reply
        server_evaluate_s seconds of evaluation on the server
        aggregate_overlap_s seconds of aggregation done while replies were still awaited, the sum of aggregate-overlap-s in metrics.csv; 0 without streaming aggregation
        ended_by client whose reply was the last
        ended_in_phase phase in which that client lost most time against the median of the others
        ended_margin_s how much later its reply was held than the one before it
        loss [float] loss of the global model after the round (server's, else the clients' aggregate)
        accuracy [float] accuracy of the global model after the round
        clients_selected [int] clients that were sent a message
        clients_replied [int] clients whose reply was accepted
        clients_missing [int] clients selected but not replied
    """
    ),
)

DERIVED = (TIMELINE_TABLE, CLIENTS_TABLE, ROUNDS_TABLE)
