"""What the kernel knows of a TCP connection: TCP_INFO, and bytes on the wire computed from it."""

import ctypes
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ETHERNET_HEADER_BYTES = 14
_IPV4_HEADER_BYTES = 20
_IPV6_HEADER_BYTES = 40
_TCP_HEADER_BYTES = 20
_TCP_TIMESTAMP_BYTES = 12
_TIMESTAMPS_OPTION = 1
_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h: as of the last tick of the kernel's timer
_TICK_NS = round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)


def _fields(kind: type[ctypes.c_uint8 | ctypes.c_uint32 | ctypes.c_uint64], names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class _TcpInfo(ctypes.Structure):
    """`struct tcp_info` of linux/tcp.h, as far as kernel 5.4 fills it; 4.19 (Debian 10) does to `bytes_retrans`."""

    _fields_ = (
        *_fields(ctypes.c_uint8, "state ca_state retransmits probes backoff options window_scale flags"),
        *_fields(ctypes.c_uint32, "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent"),
        *_fields(ctypes.c_uint32, "last_ack_sent last_data_recv last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh"),
        *_fields(ctypes.c_uint32, "snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans"),
        *_fields(ctypes.c_uint64, "pacing_rate max_pacing_rate bytes_acked bytes_received"),
        *_fields(ctypes.c_uint32, "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
        *_fields(ctypes.c_uint64, "delivery_rate busy_time rwnd_limited sndbuf_limited"),
        *_fields(ctypes.c_uint32, "delivered delivered_ce"),
        *_fields(ctypes.c_uint64, "bytes_sent bytes_retrans"),
        *_fields(ctypes.c_uint32, "dsack_dups reord_seen rcv_ooopack"),
    )


@dataclass(frozen=True)
class TcpSnapshot:
    """TCP_INFO of one socket at one moment, in the units of the run folder.

    Attributes
    ----------
    rtt_s, rtt_variance_s, min_rtt_s : float
        Smoothed round-trip time, its variation, and the smallest seen, in seconds.
    retransmissions : int
        Segments retransmitted since the connection was opened.
    congestion_window_segments : int
        Congestion window.
    delivery_rate_bps : int
        The kernel's estimate of the delivery rate, in bits a second.
    wire_out_bytes, wire_in_bytes : int
        Bytes of Ethernet frames that this connection sent and received since it was opened: payload with
        retransmissions, and 14 + 20 (IPv6: 40) + 20 (with timestamps: 32) bytes of headers for each segment. The options
        of the two SYNs and of selective acknowledgements are not counted (tens of bytes in all).
    data_out_bytes, data_in_bytes : int
        The same of segments that carry data alone: pure acknowledgements, which belong to the transfer of the other
        direction, are left out.
    idle_s : float
        Seconds since data was last sent.
    rto_s : float
        Retransmission timeout: a pause of more than that makes TCP start slowly again, where the host is set so.
    """

    rtt_s: float
    rtt_variance_s: float
    min_rtt_s: float
    retransmissions: int
    congestion_window_segments: int
    delivery_rate_bps: int
    wire_out_bytes: int
    wire_in_bytes: int
    data_out_bytes: int
    data_in_bytes: int
    idle_s: float
    rto_s: float


def tcp_info(sock: socket.socket) -> _TcpInfo | None:
    """The kernel's own structure, of a connected socket; None if it is closed already."""
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ctypes.sizeof(_TcpInfo))
    except OSError:
        return None
    return _TcpInfo.from_buffer_copy(raw.ljust(ctypes.sizeof(_TcpInfo), b"\0"))


def tcp_snapshot(sock: socket.socket) -> TcpSnapshot | None:
    """Read TCP_INFO of a connected socket; None if it is closed already."""
    info = tcp_info(sock)
    if info is None:
        return None
    ip_header = _IPV6_HEADER_BYTES if _is_ipv6(sock) else _IPV4_HEADER_BYTES
    tcp_header = _TCP_HEADER_BYTES + (_TCP_TIMESTAMP_BYTES if info.options & _TIMESTAMPS_OPTION else 0)
    headers = ETHERNET_HEADER_BYTES + ip_header + tcp_header
    return TcpSnapshot(
        rtt_s=info.rtt / 1e6,
        rtt_variance_s=info.rttvar / 1e6,
        min_rtt_s=info.min_rtt / 1e6,
        retransmissions=info.total_retrans,
        congestion_window_segments=info.snd_cwnd,
        delivery_rate_bps=info.delivery_rate * 8,
        wire_out_bytes=info.bytes_sent + info.segs_out * headers,
        wire_in_bytes=info.bytes_received + info.segs_in * headers,
        data_out_bytes=info.bytes_sent + info.data_segs_out * headers,
        data_in_bytes=info.bytes_received + info.data_segs_in * headers,
        idle_s=info.last_data_sent / 1e3,
        rto_s=info.rto / 1e6,
    )


def out_of_order_packets(sock: socket.socket) -> int | None:
    """How many packets of a connection came behind a gap, since it was opened; None if the kernel does not count them."""
    end = _TcpInfo.rcv_ooopack.offset + _TcpInfo.rcv_ooopack.size
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ctypes.sizeof(_TcpInfo))
    except OSError:
        return None
    return None if len(raw) < end else int.from_bytes(raw[_TcpInfo.rcv_ooopack.offset : end], sys.byteorder)


def longest_silence_ns(sock: socket.socket) -> int | None:
    """How long ago data last came in order, at most; None if the connection is closed.

    What comes behind a gap is not in order, what fills the gap is. The kernel counts in ticks of its timer
    (tcpi_last_data_recv; 1 to 10 ms each), so what it says may be a tick too short, or as much as its tick is late.
    """
    tick_ns = time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE)
    info = tcp_info(sock)
    late_ns = time.monotonic_ns() - tick_ns
    return None if info is None else info.last_data_recv * 1_000_000 + max(late_ns, _TICK_NS)


def _is_ipv6(sock: socket.socket) -> bool:
    """Whether packets are IPv6: a socket that listens on [::] also serves IPv4, under mapped addresses."""
    return sock.family == socket.AF_INET6 and not sock.getsockname()[0].startswith("::ffff:")


def congestion_control(sock: socket.socket) -> str:
    """Name of the socket's congestion control; empty if it cannot be read."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).split(b"\0", 1)[0].decode()
    except OSError:
        return ""


def set_congestion_control(sock: socket.socket, name: str) -> bool:
    """Choose the congestion control of a socket; False where the kernel has not got it or does not allow it."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError:
        return False
    return True


def tcp_settings() -> dict[str, bool | None]:
    """What this host's TCP remembers of a connection after a pause and after its end; None where it cannot be read.

    Returns
    -------
    dict
        `idle_restart`: it starts slowly again after a pause (net.ipv4.tcp_slow_start_after_idle). `metrics_cache`: a new
        connection starts with what is known of the last one to the same host (not net.ipv4.tcp_no_metrics_save).
    """
    no_save = _setting("tcp_no_metrics_save")
    return {"idle_restart": _setting("tcp_slow_start_after_idle"), "metrics_cache": None if no_save is None else not no_save}


def _setting(name: str) -> bool | None:
    try:
        return Path("/proc/sys/net/ipv4", name).read_text().strip() != "0"
    except OSError:
        return None


def sender_columns(before: TcpSnapshot, after: TcpSnapshot, restarts: bool | None) -> dict[str, float | int | bool | None]:
    """The sender's TCP columns of transfers.csv, from TCP_INFO before and after an exchange.

    `restarts` is the host's `idle_restart` of `tcp_settings`.
    """
    return {
        "rtt_s": after.rtt_s,
        "rtt_variance_s": after.rtt_variance_s,
        "min_rtt_s": after.min_rtt_s,
        "retransmissions": after.retransmissions - before.retransmissions,
        "congestion_window_segments": after.congestion_window_segments,
        "delivery_rate_bps": after.delivery_rate_bps,
        "idle_s": before.idle_s,
        "rto_s": before.rto_s,
        "congestion_window_start_segments": before.congestion_window_segments,
        "idle_restart": None if restarts is None else restarts and before.idle_s > before.rto_s,
    }
