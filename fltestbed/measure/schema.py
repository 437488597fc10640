"""The files that are recorded while a run goes on: every column, its unit and what it means.

The recorder writes its headers from here, one row as soon as it is known, and the analysis checks what it reads against it.
What is derived from these files stands in `fltestbed.measure.derived`; both make the page `analysis/columns.md`
(`fltestbed.measure.dictionary`).
"""

from fltestbed.measure.table import Table, columns_of

SCHEMA_VERSION = 1

PHASES = (
    "configure",
    "queue",
    "connect",
    "downlink",
    "deserialize",
    "train",
    "evaluate",
    "serialize",
    "uplink",
    "collect",
    "wait",
    "aggregate",
    "server_evaluate",
)
"""The phases of a round, in the order in which one client lives through them."""

SERVER_PHASES = ("aggregate", "server_evaluate")
"""Phases that belong to the round as a whole: their `client` is empty."""

STATUSES = ("ok", "failed", "timeout", "missing")

PHASES_TABLE = Table(
    "phases.csv",
    "The main record: one row a phase of one client (or of the server) in one round.",
    columns_of("""
        run name of the run
        round [int] number of the round, from 1; 0 is what comes before the first
        client name of the client; empty for phases of the server
        link name of the client's link, as given with --link
        message_type Flower's type of the message that the phase belongs to: train, evaluate, query
        message_id Flower's identifier of the message that went to the client; empty for phases of the server
        attempt [int] number of the try, from 1
        phase one of configure, queue, connect, downlink, deserialize, train, evaluate, serialize, uplink, collect, wait, aggregate, server_evaluate
        start_host host whose clock gave start_raw_ns: server, or the client's name; empty if there is no stamp
        start_raw_ns CLOCK_MONOTONIC_RAW of start_host when the phase began
        end_host host whose clock gave end_raw_ns
        end_raw_ns CLOCK_MONOTONIC_RAW of end_host when the phase ended
        start_ns start on the server's clock, from the run's zero, with the clock mapping known when the row was written
        end_ns end on the server's clock, from the run's zero
        duration_s end minus start; across two hosts with the mapping of that moment, never clamped: it may be negative within its uncertainty
        duration_uncertainty_s half-width of duration_s: of the clock mapping, 0 when both stamps are of one host, plus stamp_uncertainty_s
        placement_uncertainty_s half-width of the position of start_ns and end_ns on the server's clock; 0 for stamps of the server
        stamp_uncertainty_s by how much the stamp of an arrival (its end, or its start of deserialize and collect, which follow one) may be too late because the kernel did not say when the packet came; part of duration_uncertainty_s
        uncertain [bool] 1 when the magnitude of duration_s is smaller than duration_uncertainty_s
        payload_bytes bytes of the model message without HTTP framing; for transfers only
        wire_bytes bytes of the transfer's direction on the wire: TCP payload with retransmissions, and Ethernet, IP and TCP headers; for transfers only
        status ok; failed; timeout (no reply before the deadline: the phase is the one in which the client was lost); missing (not visible)
        detail what a reader should know: which data an evaluation used, why a stamp is missing, the symptom of a failure
    """),
)

TRANSFERS_TABLE = Table(
    "transfers.csv",
    "One row an HTTP exchange that moved a model, with the stamps of both ends and the sender's TCP_INFO.",
    columns_of("""
        run name of the run
        round [int] number of the round
        client name of the client
        link name of the client's link
        direction downlink or uplink
        message_id Flower's identifier of the message that went to the client
        attempt [int] number of the try, from 1
        transport bundle or objects
        client_start_raw_ns client's clock: downlink, first byte of the response reached the host (kernel's stamp); uplink, first byte of the request left the host (kernel's stamp; else it was about to be handed to the kernel); with TLS the client's stamps are its own, of the plain text, so encryption counts as transfer
        client_end_raw_ns client's clock: downlink, last byte of the response reached the host (kernel's stamp; else it was read); uplink, last byte of the request left the host for the first time (kernel's stamp; else it was handed to the kernel)
        client_response_raw_ns client's clock: uplink, first byte of the server's answer reached the host; empty for downlink
        server_start_raw_ns server's clock: downlink, first byte of the response left the host (kernel's stamp; else it was about to be handed to the kernel); uplink, first byte of the request reached the host (kernel's stamp; else its header was parsed)
        server_end_raw_ns server's clock: downlink, last byte of the response left the host for the first time (kernel's stamp; else it was handed to the kernel); uplink, last byte of the request reached the host (kernel's stamp; else it was read)
        payload_bytes bytes of the message without HTTP framing and TLS records
        wire_up_bytes bytes from client to server on the wire during the exchange, headers and retransmissions included, from the client's TCP_INFO
        wire_down_bytes bytes from server to client on the wire during the exchange, from the client's TCP_INFO
        sender_host host whose socket gave the TCP columns: the client for uplink, server for downlink
        rtt_s smoothed round-trip time (tcpi_rtt) at the end of the exchange
        rtt_variance_s variation of the round-trip time (tcpi_rttvar)
        min_rtt_s smallest round-trip time that the socket has seen (tcpi_min_rtt)
        retransmissions [int] segments retransmitted during the exchange (tcpi_total_retrans)
        congestion_window_segments [int] congestion window at the end of the exchange (tcpi_snd_cwnd)
        delivery_rate_bps delivery rate that the kernel estimates, bits a second (tcpi_delivery_rate)
        congestion_control name of the sender's congestion control
        new_connection [bool] 1 when the exchange had to open a connection
        connect_s time to open that connection, TLS included, on the client's clock; empty without one
        idle_s time that the connection had been idle before the exchange: since its sender last sent data (tcpi_last_data_sent at its start); also how long a radio may have slept
        rto_s retransmission timeout at the start of the exchange (tcpi_rto): a longer pause makes Linux start slowly again, unless net.ipv4.tcp_slow_start_after_idle is 0
        congestion_window_start_segments [int] congestion window at the start of the exchange (tcpi_snd_cwnd), before such a restart makes it smaller
        idle_restart [bool] 1 when TCP started slowly again because of the pause: idle_s above rto_s on a host that restarts (kept still by connection.idle-restart); empty where the host's setting cannot be read
        status ok or failed
        detail symptom of a failure
    """),
)

CLOCK_SAMPLES_TABLE = Table(
    "clock_samples.csv",
    "One row an exchange used for the clock mapping: its four stamps.",
    columns_of("""
        run name of the run
        client name of the client
        interface interface over which the exchange went: the client's link, or a second network (--clock-interface)
        exchange which exchange: clock (made for the purpose), pull, push
        client_send_raw_ns client's clock when the request's first byte left the host (kernel's stamp; else it was about to be handed to the kernel)
        server_receive_raw_ns server's clock when its first byte reached the host (kernel's stamp; else its header was parsed)
        server_send_raw_ns server's clock when the answer's first byte left the host (kernel's stamp; else it was about to be handed to the kernel)
        client_receive_raw_ns client's clock when the answer's first byte reached the host (kernel's stamp; else its header was read)
        offset_ns middle estimate of server minus client clock
        half_width_ns half the round trip net of the server's processing: offset_ns is off by at most this
    """),
)

CLOCK_TABLE = Table(
    "clock.csv",
    "What the samples of one client over one interface were made to say, each time they said it more narrowly. Two interfaces differ by the asymmetry of their paths.",
    columns_of("""
        run name of the run
        client name of the client
        interface interface whose samples were used
        client_raw_ns client's clock at which the estimate holds best
        offset_ns server minus client clock at client_raw_ns
        drift_ppm [float] how much faster the server's clock runs, parts in a million: the middle of what the samples allow, 0 while that is nothing new
        half_width_ns half-width of offset_ns at client_raw_ns
        drift_bound_ppm [float] the drift is within drift_ppm ± this, by which the half-width grows with the distance from client_raw_ns
    """),
)

AGGREGATE_OVERLAP = "aggregate-overlap-s"
"""Metric of the toolkit's own in metrics.csv, from which `aggregate_overlap_s` of rounds.csv is derived."""

UPLINK_COMPRESSION_ERROR = "uplink-compression-error"
DOWNLINK_COMPRESSION_ERROR = "downlink-compression-error"
"""Metrics of the toolkit's own in metrics.csv: what compression made of the numbers of a message."""

CHECKPOINT_TIME = "checkpoint-s"
CHECKPOINT_PAUSE = "checkpoint-pause-s"
"""Metrics of the toolkit's own in metrics.csv: how long a checkpoint took to the disk, and how long the round loop paused."""

ROUND_TIME = "round-s"
"""Metric of the toolkit's own: seconds of a round that was not measured otherwise (`[instrumentation]`)."""

METRICS_TABLE = Table(
    "metrics.csv",
    "Loss, accuracy and whatever else the apps report.",
    columns_of("""
        run name of the run
        round [int] number of the round; 0 is the model before the first
        client name of the client; empty for a figure of the global model or an aggregate
        source server (evaluated or measured there), client (one client's own) or aggregate (weighted over clients)
        message_type train, evaluate or query for metrics that came with replies; empty for the server's evaluation
        metric name of the metric as the app gave it; the toolkit's own are aggregate-overlap-s (server, train): seconds in which replies were added up while others were still awaited, no row without streaming aggregation; uplink-compression-error (client) and downlink-compression-error (server): norm of what quantisation changed over the norm of the quantised tensors, no row without compressed tensors; checkpoint-s (server): from the end of a round until its model and the strategy's state were on the disk, beside whatever went on, and checkpoint-pause-s (server): what the round loop itself spent on that, between two rounds and in no phase; and round-s (server), of a round that was not measured otherwise: its seconds, from configure to the end of its last aggregation
        value [float] its value
        raw_ns server's clock when the value was known
        time_s the same from the run's zero
    """),
)

SYSTEM_TABLE = Table(
    "system.csv",
    "State of each host at an interval.",
    columns_of("""
        run name of the run
        host server, or the client's name
        raw_ns the host's own clock
        time_s on the server's clock from the run's zero, with the mapping known then
        cpu_percent [float] CPU time used by the whole host since the last row, 100 for each core
        process_cpu_percent [float] CPU time used by the toolkit's processes of this host
        memory_used_bytes memory in use on the host
        process_memory_bytes memory (RSS) of the toolkit's processes of this host
        temperature_c [float] temperature of the processor, its hottest sensor; empty where there is none
        throttled_flags a Raspberry Pi's word of throttling and undervoltage flags, hexadecimal: bit 0 undervoltage, 1 frequency capped, 2 throttled, 3 soft temperature limit; 16 bits further on the same since boot; empty elsewhere
        interface interface that the byte counts belong to; all: the sum of all but the loopback
        rx_bytes bytes received by the interface since it came up
        tx_bytes bytes sent by the interface since it came up
        probes_cpu_s CPU time that the probes took since the row before, with the programs that they asked
        time_sync daemon that said what follows: chrony, systemd-timesyncd or ptp4l; empty in rows for which none was asked
        wall_offset_s reference minus the host's wall clock, as that daemon says; no stamp depends on it
        wall_offset_uncertainty_s bound of its error, as the daemon says; empty where it gives none
        sched_delay_s time since the last row in which the thread that stamps could have run and had no CPU (schedstat of Linux): the server's event loop, the client's network process
        loop_lag_max_s largest time since the last row that something that had come waited until the server's event loop, which stamps it, came to it; empty on clients, which have none
    """),
)

SESSIONS_TABLE = Table(
    "sessions.csv",
    "One row a session of the server: the run's first, and one for each time that it was resumed.",
    columns_of("""
        run name of the run
        session [int] number of the session, from 1
        first_round [int] the round with which it began; what an earlier session had begun of that round and later ones was made again, and stands in the other files before this session's rows
        start_wall wall clock of the server's host, UTC, ISO 8601
        start_raw_ns server's clock when the session began; of a host that was started again continued by its wall clock
        start_ns the same from the run's zero
        gap_s time without a server before it: since the last stamp that the session before left on the disk; empty for the first
        same_boot [bool] 1 when the host was not started again in between: then gap_s is as good as its clock, else only as good as its wall clock; empty for the first
        before how the session before it ended: killed (without a word), failed or interrupted; empty for the first
        detail why, as far as it was said
    """),
)

RADIO_TABLE = Table(
    "radio.csv",
    "State of each client's radio at an interval: one row a technology. And what the gNB's log says: one row a modem and report.",
    columns_of("""
        run name of the run
        host the client's name; server in rows of the gNB's log
        raw_ns the host's own clock
        time_s on the server's clock from the run's zero, with the mapping known then
        interface interface that the radio belongs to; gnb in rows of the gNB's log
        technology wifi, 5g, lte, umts or gsm; a modem on a non-standalone 5G network has a row for 5g and one for lte
        rsrp_dbm [float] power of the cell's reference signal (SS-RSRP for 5g); of the gNB's log the mean of what the modem reported since the report before
        rsrq_db [float] quality of the reference signal
        sinr_db [float] signal to interference and noise, as the modem says
        rssi_dbm [float] power received in the channel; for wifi, of the access point's last frame
        tx_bit_rate_bps bit rate of the last frame sent; for wifi
        rx_bit_rate_bps bit rate of the last frame received; for wifi
        channel [int] number of the channel for wifi, NR-ARFCN for 5g, EARFCN for lte
        frequency_mhz [float] centre of the primary channel; for wifi
        channel_width_mhz [float] width of the channel; for wifi
        power_save [bool] 1 when the radio may sleep between beacons; for wifi
        cell global identity of the serving cell, hexadecimal; for wifi the access point's address; empty without one
        physical_cell [int] physical identity of the serving cell
        rnti identity of a modem in its cell, hexadecimal (C-RNTI); another one after each connection; this and what follows in rows of the gNB's log alone
        tdd_pattern slots of a TDD period: D downlink, U uplink, S special; empty where the log does not say it
        in_sync [bool] 1 when the gNB schedules the modem, 0 after a failure of its radio link
        power_headroom_db [int] power that the modem has left for its uplink, as it reported
        cqi [int] quality of the downlink that the modem reported, 0 to 15
        dl_mcs [int] modulation and coding scheme of the downlink, 0 to 28, of the scheduler's table in use
        ul_mcs [int] the same of the uplink
        dl_bler [float] blocks of the downlink that had to be sent again, as a part of one: OpenAirInterface's moving mean, srsRAN's of the report's period
        ul_bler [float] the same of the uplink
        dl_harq_rounds blocks of the downlink sent for the first time / again / a third time / ..., since the modem connected (OpenAirInterface)
        ul_harq_rounds the same of the uplink
        dl_retransmissions [int] blocks of the downlink sent again since the row before; with srsRAN, blocks that failed
        ul_retransmissions [int] the same of the uplink
        dl_prb [float] resource blocks of the downlink, mean over its slots (srsRAN)
        ul_prb [float] resource blocks of the uplink: of the last grant (OpenAirInterface), mean over its slots (srsRAN)
        dl_bit_rate_bps bits a second of the downlink at the MAC layer since the row before
        ul_bit_rate_bps the same of the uplink
        pusch_snr_db [float] signal to noise of the uplink at the gNB
    """),
)

EVENTS_TABLE = Table(
    "events.csv",
    "One row a thing that went wrong, or was right again: who was missing in which round, and who came back.",
    columns_of("""
        run name of the run
        round [int] number of the round under way
        client name of the client; empty for what is not about one
        event missing (the round went on without a reply: it never came in time, or it was an error), returned (a client that was missing is heard again), joined_again (a client that had joined joins anew: its process was started again), abandoned (fewer replies than deadlines.minimum-replies: the strategy got none of them)
        message_type Flower's type of the message that was not answered
        message_id Flower's identifier of that message
        attempt [int] how often the message had been sent to the client
        phase the latest phase that the server knows to have begun; empty where there is none. A downlink counts as over when the client's host has acknowledged all of it: its buffers take what fits, also for a process that stands still, so the client of a message that fits can be named in train although it has not read it
        symptom what was seen, to be counted: connection reset by the client, connection closed by the client, connection stalled (its host acknowledged nothing), connection timed out, silence (its connection stood), error reply, node unavailable (Flower's own word for a node without a heartbeat)
        detail the symptom in full, and which limit was over
        raw_ns server's clock
        time_s the same from the run's zero
        duration_s missing: since the message could be asked for; returned and joined_again: since the round had gone on without the client, empty if none had
    """),
)

RECORDED = (
    PHASES_TABLE,
    TRANSFERS_TABLE,
    CLOCK_SAMPLES_TABLE,
    CLOCK_TABLE,
    METRICS_TABLE,
    SYSTEM_TABLE,
    RADIO_TABLE,
    EVENTS_TABLE,
    SESSIONS_TABLE,
)
TABLES = {table.name: table for table in RECORDED}
