"""What server and client read from the network, each as a function of bytes that raises for a bug alone.

A target may refuse its bytes with the errors that its reader declares. Anything else that comes out of it is a finding, as
is a target that takes longer than `MOST_S` or more memory than it is allowed.
"""

import asyncio
import http.client
import io
import json
import struct
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvicorn
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
from uvicorn.server import ServerState

from fltestbed import __version__
from fltestbed.bench.fuzz_tools import answers, log_lines, read_gnb, read_tools
from fltestbed.bench.models import fresh_weights
from fltestbed.client.hello import read_hello
from fltestbed.client.response import MOST_CONTROL_BYTES, read_body
from fltestbed.client.told import MessageFacts, ReplyEnd, ServerStamps, read_told
from fltestbed.errors import ConfigError, RunFolderError, ServerRefused
from fltestbed.flower.agreement import Agreement
from fltestbed.flower.apps import inspect, pack_installed_app, set_identity
from fltestbed.flower.bundle import Bundle, BundleError, decode, read_head
from fltestbed.flower.fleet import (
    FleetError,
    announced_reply,
    announcement,
    check_announcement,
    pulled_message,
    pushed_object,
)
from fltestbed.flower.node_key import server_time_s
from fltestbed.flower.quantisation import Codec, CompressionError, squares
from fltestbed.flower.quantisation import decode as whole
from fltestbed.flower.strategy_state import NotCovered, restore, snapshot
from fltestbed.measure.recorder import cell, line
from fltestbed.server.bounds import BoundedProtocol
from fltestbed.server.checkpoint import UNREADABLE, Checkpoint, load, save
from fltestbed.server.collection import _read_journal
from fltestbed.server.facts import FactsError, read_facts, read_kept_replies
from fltestbed.server.host_facts import HostFactsError, read_host
from fltestbed.server.late_facts import read_late_facts
from fltestbed.server.marks import read_marks
from fltestbed.server.roster import JoinRefused, read_join

MOST_S = 10
MOST_INFLATED_BYTES = 4 << 20


@dataclass(frozen=True)
class Target:
    """A reader, and bytes that it takes, from which others are made."""

    name: str
    read: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def read_bundle(data: bytes) -> None:
    """A bundle, to the messages in it. Its hashes are not checked: a fuzzer would never get past them."""
    with suppress(BundleError):
        read_head(data)
    with suppress(BundleError):
        decode(data)
    with suppress(BundleError):
        bundle = decode(data, verify=False)
        average(list(bundle.inflate_replies(MOST_INFLATED_BYTES)))
        bundle.inflate(MOST_INFLATED_BYTES)


def average(replies: list[Message]) -> None:
    """What a strategy makes of replies that were judged."""
    agreement = Agreement("num-examples", _message())
    left = [reply for reply in replies if not reply.has_error() and agreement.problem(reply) is None]
    refused = agreement.settle(left)
    FedAvg().aggregate_train(1, [reply for reply in left if reply.metadata.reply_to_message_id not in refused])


def read_facts_of(data: bytes) -> None:
    """What requests of clients and of the ServerApp's process say, and what becomes a cell."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return
    line([cell(told if isinstance(told, str) else str(told)[:200])])
    if not isinstance(told, dict):
        return
    for read in (read_facts, read_late_facts, read_kept_replies, read_marks, read_host, read_join):
        with suppress(FactsError, HostFactsError, JoinRefused):
            cast(Callable[[dict[str, Any]], object], read)(told)
    with suppress(ServerRefused):
        read_hello(told)
    for kind in (ServerStamps, MessageFacts, ReplyEnd):
        with suppress(ServerRefused):
            read_told(kind, told)


def read_date(data: bytes) -> None:
    """The date of an answer, from which a client learns the time that it signs."""
    with suppress(ServerRefused):
        server_time_s(data.decode("latin-1"))


def read_tensor(data: bytes) -> None:
    """A compressed tensor of any type and shape."""
    names = ("float32", "float64", "int8", "float16", "uint8", "O", "(2,)f4", "<f4", "complex64", "?", "V8")
    if len(data) < 8:
        return
    shape = tuple(length % 97 if axis else length for axis, length in enumerate(data[2 : 2 + data[1] % 5]))
    with suppress(CompressionError):
        squares(data[8:])
    with suppress(CompressionError):
        whole(data[8:], names[data[0] % len(names)], shape)


def read_fleet(data: bytes) -> None:
    """Flower's own requests, as the observer and its guard read them."""
    for read in (announced_reply, pulled_message, pushed_object, lambda request: check_announcement(request, 7)):
        with suppress(FleetError):
            read(data)


def read_app(data: bytes) -> None:
    """A packed app, as a client looks at it."""
    with suppress(ConfigError):
        inspect(data)


class _Answered:
    """A socket from which an answer is read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        """Like a socket's."""
        return io.BytesIO(self._data)


def read_answer(data: bytes) -> None:
    """An HTTP answer, as a client reads it."""
    response = http.client.HTTPResponse(cast(Any, _Answered(data)), method="POST")
    with suppress(http.client.HTTPException, OSError):
        response.begin()
        read_body(response, MOST_CONTROL_BYTES, MOST_S)
    response.close()


class _Wire(asyncio.Transport):
    """A connection whose other end is the fuzzer."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.7", 40000), "sockname": ("10.0.0.1", 9092)})
        self.is_over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        """Whether the protocol has ended it."""
        return self.is_over

    def close(self) -> None:
        """End it."""
        self.is_over = True

    abort = close

    def pause_reading(self) -> None:
        """There is no hurry."""

    resume_reading = pause_reading


@lru_cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def _swallow(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # ASGI's signature
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def read_request(data: bytes) -> None:
    """What comes over a connection of the server, in pieces whose length the first byte says."""

    async def feed() -> None:
        config = uvicorn.Config(
            _swallow, http=BoundedProtocol, ws="none", lifespan="off", log_level="critical", access_log=False
        )
        config.load()
        protocol, wire = BoundedProtocol(config, ServerState(), {}), _Wire()
        protocol.connection_made(wire)
        step = max(1, data[0]) if data else 1
        for start in range(1, len(data), step):
            if wire.is_over:
                break
            protocol.data_received(data[start : start + step])
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        while protocol.tasks:
            await asyncio.sleep(0)

    _loop().run_until_complete(feed())


def read_journal(data: bytes) -> None:
    """A client's own copy of its rows, which `fltestbed collect` may get from a stranger."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(RunFolderError):
            _read_journal(Path(file.name))


def read_checkpoint(data: bytes) -> None:
    """A checkpoint that somebody else has written, and its state put into a strategy."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(RunFolderError, NotCovered, *UNREADABLE):
            state = load(Path(file.name)).state
            restore(FedAdam(), state.tree, state.blobs)


def _checkpoints() -> list[bytes]:
    strategy = FedAdam()
    strategy.m_t = {"layer0": np.zeros(3, np.float32)}
    arrays = ArrayRecord({"layer0": Array(np.zeros(3, np.float32))})
    with tempfile.TemporaryDirectory() as folder:
        return [save(Path(folder), Checkpoint(3, arrays, snapshot(strategy))).read_bytes()]


def _message() -> Message:
    set_identity(1, 1, 1)
    arrays = ArrayRecord({f"layer{number}": Array(array) for number, array in enumerate(fresh_weights(((2, 3), (4,))))})
    metrics = MetricRecord({"loss": 0.5, "num-examples": 3})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1}), "metrics": metrics})
    return Message(content, dst_node_id=7, message_type="train")


def bundles() -> list[bytes]:
    """A message, an error, both and nothing."""
    message = _message()
    bare = Message(RecordDict({"metrics": MetricRecord({"loss": 0.5})}), dst_node_id=7, message_type="evaluate")
    error = Message(Error(1, "it broke"), reply_to=_delivered(message))
    sets: tuple[list[Message], ...] = ([], [bare], [message], [error], [message, bare])
    return [b"".join(bytes(piece) for piece in Bundle.of(each, {"server_send_raw_ns": 1}).encode()) for each in sets]


def _delivered(message: Message) -> Message:
    (received,) = decode(b"".join(bytes(piece) for piece in Bundle.of([message]).encode())).inflate()
    return received


def told() -> list[bytes]:
    """What clients say when all goes well, and when somebody means ill."""
    stamps = dict.fromkeys(("downlink_end_raw_ns", "called_raw_ns", "returned_raw_ns", "send_raw_ns"), 5)
    stamps["downlink_end_uncertainty_ns"] = 1
    transfer = {
        "message_id": "m",
        "direction": "uplink",
        "client_start_raw_ns": 1,
        "client_end_raw_ns": 2,
        "new_connection": False,
    }
    late = {
        "replies": [{**stamps, "message_id": "m"}], "transfers": [transfer],
        "clock_samples": [{"exchange": "pull", "stamps": [1, 2, 3, 4], "interface": None}],
        "radio": [{"raw_ns": 1, "interface": "wlan0", "technology": "wifi", "rssi_dbm": -60.0}],
        "probes": {"wifi": {"on": True}},
    }  # fmt: skip
    host = {"name": "pi", "cores": 4, "interfaces": {"eth0": {"mtu": 1500}}, "unknown": {}}
    marks = {"marks": [{"kind": "metrics", "round": 1, "source": "client", "values": {"loss": 0.5}, "raw_ns": 1}]}
    hello = {
        "node_id": "1", "run": "run", "run_id": "2", "fab_id": "a/b", "fab_version": "1", "fab_hash": "0" * 64, "clients": 2,
        "transport": "bundle", "hold_s": 20.0, "keep_warm_s": 0.0, "deadline_s": 600.0, "congestion_control": "cubic",
        "measured": True, "clock_interval_s": 1.0, "probes": {"wifi": True},
        "compression": {"name": "none", "zstd_level": None},
        "largest_message_bytes": 1, "first_run_id": "2", "versions": {"fltestbed": __version__}, "patience_s": 900.0,
        "trainer_limit_s": 540.0,
    }  # fmt: skip
    ill = ['"=HYPERLINK(1)"', '{"spans": NaN}', '{"raw_ns": 1e30}', '"\\ud800\\u202e"', "[" * 500 + "]" * 500]
    join = {"name": "pi", "link": "5g", "interface": "lo", "partition": 0, "host": host, "wall_offset_s": 0.5, "boot": "b"}
    answer = {
        "server_receive_raw_ns": 1, "server_send_raw_ns": 2, "server_end_raw_ns": 3, "server_end_uncertainty_ns": 0,
        "measured": True, "round": 1, "message_type": "train",
    }  # fmt: skip
    good = (stamps, late, host, marks, hello, join, answer)
    return [json.dumps(each).encode() for each in good] + [text.encode() for text in ill]


def _tensors() -> list[bytes]:
    values = fresh_weights(((4, 24),))[0]
    codecs = (Codec("fp16"), Codec("int8"), Codec("int8", 3), Codec("none", 3))
    data = [codec.encode(values if codec.name != "none" else values * 0) for codec in codecs]
    return [bytes([0, 2, 4, 24, 0, 0, 0, 0]) + each for each in data if each is not None]


def _announcements() -> list[bytes]:
    parts = (part for data in bundles() for part in decode(data).messages)
    return [announcement(7, message, tree).SerializeToString() for message, tree in parts]


def _answers() -> list[bytes]:
    heads = ("content-length: 2", "transfer-encoding: chunked", "content-length: -1", "content-length: 99999999999999999999")
    answers = [f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{{}}" for head in heads]
    return [
        text.encode() for text in (*answers, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "HTTP/0.9\r\n")
    ]


def _requests() -> list[bytes]:
    post = b"POST /v1/fltestbed/client/clock HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    smuggled = b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    upgrade = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    trailers = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\na: b\r\n\r\n"
    zeros = b"POST / HTTP/1.1\r\ncontent-length: 0000000000000000000000000002\r\n\r\n{}"
    hello = b"\x16\x03\x01\x02\x00\x01\x00"
    return [b"\xff" + request for request in (post, post * 3, smuggled, upgrade, trailers, zeros, hello)]


def _journals() -> list[bytes]:
    head = json.dumps({"client": "pi", "link": "5g", "interface": "lo", "transport": "bundle"}).encode()
    return [head + b"\n" + b"\n".join(told()[:3]), head + b"\n" + b"[" * 5000, struct.pack(">I", 7)]


TARGETS = {
    target.name: target
    for target in (
        Target("bundle", read_bundle, bundles),
        Target("facts", read_facts_of, told),
        Target("tensor", read_tensor, _tensors),
        Target("fleet", read_fleet, _announcements),
        Target("app", read_app, lambda: [pack_installed_app("{}")]),
        Target("answer", read_answer, _answers),
        Target("request", read_request, _requests),
        Target("journal", read_journal, _journals),
        Target("checkpoint", read_checkpoint, _checkpoints),
        Target("date", read_date, lambda: [b"Mon, 23 Nov 2026 10:00:06 GMT", b"Fri, 31 Dec 9999 23:59:59 -0000"]),
        Target("tools", read_tools, answers),
        Target("gnb", read_gnb, log_lines),
    )
}
"""By name."""
