"""The ServerApp's side and the SuperLink's understand each other, and nothing but an honest request is answered."""

import json
import os
import socket
import struct
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, cast

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import TestbedError
from fltestbed.flower.bundle import Bundle, decode
from fltestbed.flower.serverapp import ServerAppTask
from fltestbed.server.grid import BundleGrid
from fltestbed.shared_buffer import BufferPair, SharedBuffer
from tests.flower.flower_messages import instruction, tensors
from tests.server.lab import SUPERLINK_NODE, Lab, Running
from tests.server.pi import Pi, assert_alive, message_in


@pytest.fixture
def channel(running: Running, lab: Lab) -> Iterator[Connection]:
    """The ServerApp's end of the pair, while its other end is answered."""
    channel = Connection(os.dup(lab.desk.inherited[-1]))
    answering = lab.desk.answering(lab.token)
    running.run(answering.__aenter__())
    yield channel
    channel.close()
    running.run(answering.__aexit__(None, None, None))


@pytest.fixture
def grid(lab: Lab, channel: Connection) -> BundleGrid:
    buffers = BufferPair.inherit(lab.desk.inherited[:2])
    return BundleGrid(channel, cast(ServerAppTask, None), Run.create_empty(lab.app.run_id), buffers, SYSTEM_CLOCK)


@pytest.fixture
def lone() -> BundleGrid:
    """One whose SuperLink is gone."""
    ours, theirs = socket.socketpair()
    ours.close()
    return BundleGrid(
        Connection(theirs.detach()), cast(ServerAppTask, None), Run.create_empty(1), BufferPair.make(), SYSTEM_CLOCK
    )


def asked(channel: Connection, frame: bytes) -> dict[str, Any]:
    channel.send_bytes(frame)
    return dict(json.loads(channel.recv_bytes()))


def test_a_message_goes_out_and_its_reply_comes_in(grid: BundleGrid, pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is known, what it gets is what was sent, and the reply is held as soon as it is there."""
    pi.join()
    assert list(grid.get_node_ids()) == [pi.node_id]
    monkeypatch.setattr(TaskIdentity, "_node_id", SUPERLINK_NODE)
    (message_id,) = grid.push_messages([instruction(pi.node_id, tensors(52))])
    assert list(grid.pull_messages([message_id])) == []
    pulled = pi.pull()
    message = message_in(pulled)
    assert len(message.content.array_records["arrays"]) == 52
    assert pi.push(message_id, pi.facts(pulled), pi.answer(message, 0.25)).status == 200
    (reply,) = grid.pull_messages([message_id])
    assert reply.content.metric_records["metrics"]["loss"] == 0.25


def test_nodes_are_those_that_have_joined(grid: BundleGrid, running: Running, lab: Lab, pi: Pi, other: Pi) -> None:
    """Alone and with what the SuperLink knows of them: not one that is online and loads its data yet."""
    grid._task = ServerAppTask(running.address, lab.token)
    assert list(grid.get_nodes()) == list(grid.get_node_ids()) == []
    pi.join()
    assert list(grid.get_node_ids()) == [pi.node_id]
    assert [(node.node_id, node.status) for node in grid.get_nodes()] == [(pi.node_id, "online")]
    grid._task._client.close()


def test_a_message_made_by_the_grid_is_like_any_other(grid: BundleGrid, pi: Pi) -> None:
    """Flower's older way to make one: type, group and time to live are what was given, and it arrives."""
    pi.join()
    content = RecordDict({"config": ConfigRecord({"a": 1})})
    made = grid.create_message(content, "query", pi.node_id, "7", ttl=60.0)
    assert all(grid.push_messages([made]))
    message = message_in(pi.pull())
    assert message.content == content
    metadata = message.metadata
    found = (metadata.message_type, metadata.group_id, metadata.ttl, metadata.dst_node_id)
    assert found == ("query", "7", 60.0, pi.node_id)


def test_sending_nothing_asks_nobody(lone: BundleGrid) -> None:
    """No messages, no identifiers, no replies: even where the SuperLink is gone."""
    assert list(lone.push_messages([])) == []
    assert list(lone.send_and_receive([])) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"nothing",
        b"[]",
        b"{",
        b"7",
        b'["push"]',
        b'["no-such-thing", {}]',
        b'["push", {}]',
        b'["pull", []]',
        b'["marks", {"marks": 7}]',
    ],
)
def test_what_is_no_request_is_answered_with_a_reason(channel: Connection, frame: bytes) -> None:
    """And the next one as ever."""
    assert list(asked(channel, frame)) == ["error"]
    assert asked(channel, b'["nodes", {}]') == {"node_ids": []}


def test_what_is_wrong_with_what_is_told_the_next_request_says(channel: Connection) -> None:
    """What is told gets no answer of its own; the request after the next is answered as ever."""
    channel.send_bytes(b'["tell", {"marks": []}]')
    channel.send_bytes(b'["tell", {"marks": 7}]')
    assert list(asked(channel, b'["nodes", {}]')) == ["error"]
    assert asked(channel, b'["nodes", {}]') == {"node_ids": []}


def test_nothing_is_answered_when_the_task_is_over(grid: BundleGrid, lab: Lab) -> None:
    """The run was stopped: its ServerApp is told so with the next request."""
    assert list(grid.get_node_ids()) == []
    state = lab.state
    (run,) = state.get_run_info(run_ids=[lab.app.run_id])
    assert run.primary_task_id is not None
    state.finish_task(run.primary_task_id, SubStatus.STOPPED, "")
    with pytest.raises(TestbedError, match="no task has this token"):
        grid.get_node_ids()


def test_a_frame_that_is_cut_harms_nobody(channel: Connection, pi: Pi) -> None:
    """The ServerApp's process died in the middle of a request: the server lives on."""
    os.write(channel.fileno(), struct.pack(">i", 100) + b'["nodes"')
    channel.close()
    assert_alive(pi)


def test_a_superlink_that_is_gone_is_said(lone: BundleGrid) -> None:
    """The other end is closed: an error that says so, not a wait without end."""
    with pytest.raises(TestbedError, match="does not answer its ServerApp any more"):
        lone.get_node_ids()


def test_what_is_being_read_stays_while_the_next_replies_come(lab: Lab, channel: Connection) -> None:
    """The ServerApp asks again before it has read: an answer lies beside the one before it, whatever their sizes are, and
    the place of the one before that is used again.
    """
    buffer = SharedBuffer(lab.desk.inherited[0])
    sizes = (9, 5, 7, 8, 2, 30, 4, 9, 9, 9)
    before: tuple[memoryview, bytes] | None = None
    for number, size in enumerate(sizes):
        node = lab.node(b"k%d" % number)
        (message_id,) = lab.exchange.send(lab.instruct(node))
        assert message_id is not None
        message = lab.received(lab.superlink.instruction(message_id, node))
        TaskIdentity.node_id = node
        reply = Bundle.of([Message(RecordDict({"c": ConfigRecord({"text": "x" * size * 1000})}), reply_to=message)])
        assert lab.exchange.accept(decode(b"".join(reply.encode())))
        answer = asked(channel, json.dumps(["pull", {
            "message_ids": [message_id], "run_id": str(lab.app.run_id), "hold_s": 0.0, "marks": [],
        }]).encode())  # fmt: skip
        got = buffer.read(answer["length"], answer["start"])
        assert b"x" * size * 1000 in bytes(got)
        if before is not None:
            view, held = before
            assert bytes(view) == held
        before = got, bytes(got)
        assert answer["start"] <= 2 * 31_000
