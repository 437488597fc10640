"""The toolkit's routes over real HTTP, with real registered nodes; what is wrong is refused and the server lives on."""

import json
from pathlib import Path

import pytest
from flwr.app import Error, Message
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.client.transport import REPLY_TO_HEADER
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.errors import HostError
from fltestbed.flower.apps import pack_installed_app
from fltestbed.flower.bundle import Bundle, encode_head
from fltestbed.measure.manifest import read_manifest
from tests.flower.flower_messages import answer
from tests.server.lab import Lab, Running
from tests.server.pi import Pi, assert_alive, collect, header_text, instruct, message_in, raw_request


def test_a_round_of_one_client(running: Running, lab: Lab, pi: Pi) -> None:
    """Hello, join, pull, push, leave: the app gets what was pushed, and each phase has been written once."""
    reply = pi.connection.post_json("clock", {})
    stamps = [reply.send_ns, reply.data["server_receive_raw_ns"], reply.data["server_send_raw_ns"], reply.first_ns]
    pi.join(clock_samples=[{"exchange": "clock", "stamps": stamps}])
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    pushed = pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled), 0.25))
    assert pushed.status == 200
    assert collect(running, lab, message_id).content["metrics"]["loss"] == 0.25
    pi.connection.post_json("leave", {})
    assert lab.roster.names_present() == []
    rows = lab.rows.phases("pi-0")
    assert [row["phase"] for row in rows] == [
        "configure", "queue", "downlink", "deserialize", "train", "serialize", "uplink",
    ]  # fmt: skip
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        assert row["duration_s"] >= -row["duration_uncertainty_s"], row["phase"]
    downlink, uplink = (next(row for row in rows if row["phase"] == phase) for phase in ("downlink", "uplink"))
    assert downlink["payload_bytes"] < downlink["wire_bytes"] < downlink["payload_bytes"] + 3000
    assert uplink["payload_bytes"] < uplink["wire_bytes"] < uplink["payload_bytes"] + 3000


def test_bytes_that_went_another_way_mark_the_run(pi: Pi, tmp_path: Path) -> None:
    """What the client found at its end is in the manifest, and so is the mark; what is no plain text is left out."""
    pi.join()
    carried = {"sent_bytes": 9, "received_bytes": 0}
    path = carried | {"interfaces": {"wifi0": carried}, "mismatch": "the rest left by eth0"}
    pi.connection.post_json("leave", {"path": path | {"mismatch": "\x1b[2J"}})
    assert "marks" not in read_manifest(tmp_path)
    pi.connection.post_json("leave", {"path": path})
    manifest = read_manifest(tmp_path)
    assert manifest["marks"] == ["pi-0: the rest left by eth0"]
    assert manifest["hosts"]["pi-0"]["path"] == path


def test_the_app_is_the_one_that_was_announced(lab: Lab, pi: Pi) -> None:
    """Byte for byte; a client that has not joined may have it."""
    assert bytes(pi.connection.post_json("app", {}).body) == lab.app.fab == pack_installed_app("{}")
    assert pi.hello["fab_hash"] == lab.app.fab_hash


def test_a_pull_without_work_ends_with_204(pi: Pi) -> None:
    """Nothing to do and no body; the next one may be given something."""
    pi.join()
    reply = pi.pull()
    assert (reply.status, bytes(reply.body)) == (204, b"")


def test_a_pull_after_the_end_says_so(running: Running, lab: Lab, pi: Pi) -> None:
    """The run is finished: JSON, which no bundle begins like."""
    pi.join()
    running.call(lab.exchange.finish)
    assert pi.pull().data == {"finished": True}


def test_a_message_is_pulled_again_until_it_is_held(running: Running, lab: Lab, pi: Pi) -> None:
    """Two downlinks, of which the second counts; `holds` ends it."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    assert [message_in(pi.pull()).metadata.message_id for _ in range(2)] == [message_id] * 2
    assert pi.pull(holds=message_id).status == 204
    task = lab.log.task_of(message_id)
    assert task is not None
    assert task.attempt == 2


def test_a_cut_upload_leaves_the_task_open(running: Running, lab: Lab, pi: Pi) -> None:
    """The connection breaks in the middle: no uplink is written, and the same reply is accepted afterwards."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    bundle = pi.answer(message_in(pulled))
    body = b"".join([encode_head(pi.facts(pulled), 1), *bundle.encode()[1:]])
    fields = {"content-length": str(len(body)), REPLY_TO_HEADER: message_id}
    raw_request(running, header_text(pi, "push", **fields) + body[: len(body) // 2], cut=True)
    assert_alive(pi)
    assert "uplink" not in {row["phase"] for row in lab.rows.phases()}
    assert pi.push(message_id, pi.facts(pulled), bundle).status == 200
    assert [row["phase"] for row in lab.rows.phases()].count("uplink") == 1


def test_an_upload_longer_than_announced_is_refused(running: Running, lab: Lab, pi: Pi) -> None:
    """What follows the announced bytes is no request: 400, and the reply is accepted when it is sent properly."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    bundle = pi.answer(message_in(pulled))
    body = b"".join([encode_head(pi.facts(pulled), 1), *bundle.encode()[1:]])
    fields = {"content-length": str(len(body) - 10), REPLY_TO_HEADER: message_id}
    status, _ = raw_request(running, header_text(pi, "push", **fields) + body)
    assert status == 400
    assert "uplink" not in {row["phase"] for row in lab.rows.phases()}
    assert pi.push(message_id, pi.facts(pulled), bundle).status == 200


def test_a_damaged_upload_is_refused_and_may_be_repeated(running: Running, lab: Lab, pi: Pi) -> None:
    """A wrong hash: 400 with the reason, no phase written, and the whole one is accepted."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    bundle = pi.answer(message_in(pulled))
    damaged = Bundle({}, bundle.messages, {name: bytes(content)[:-1] + b"\0" for name, content in bundle.objects.items()})
    reply = pi.push(message_id, pi.facts(pulled), damaged)
    assert (reply.status, "hash" in reply.data["error"]) == (400, True)
    assert pi.push(message_id, pi.facts(pulled), bundle).status == 200


def test_a_second_answer_is_a_conflict(running: Running, lab: Lab, pi: Pi) -> None:
    """409; the first one stands, with its phases written once."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    message = message_in(pulled)
    assert pi.push(message_id, pi.facts(pulled), pi.answer(message, 0.25)).status == 200
    second = pi.push(message_id, pi.facts(pulled), pi.answer(message, 0.75))
    assert (second.status, "answered already" in second.data["error"]) == (409, True)
    assert [row["phase"] for row in lab.rows.phases()].count("uplink") == 1
    assert collect(running, lab, message_id).content["metrics"]["loss"] == 0.25


def test_an_answer_to_nothing_is_a_conflict(running: Running, lab: Lab, pi: Pi) -> None:
    """The round was given up and its message forgotten: 409, not an error of the server."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    bundle = pi.answer(message_in(pulled))
    lab.state.delete_messages({message_id})
    assert pi.push(message_id, pi.facts(pulled), bundle).status == 409
    assert_alive(pi)


def test_a_reply_under_another_nodes_name_is_refused(running: Running, lab: Lab, pi: Pi, other: Pi) -> None:
    """The source in the message is not who signed the request: 400."""
    pi.join()
    other.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    bundle = pi.answer(message_in(pulled))
    assert other.push(message_id, pi.facts(pulled), bundle).status == 400
    assert pi.push(message_id, pi.facts(pulled), bundle).status == 200


def test_a_reply_to_another_nodes_message_changes_nothing(running: Running, lab: Lab, pi: Pi, other: Pi) -> None:
    """A node answers, in its own name, what another was asked: refused, and the other's phases are its own."""
    pi.join()
    other.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    message = message_in(pulled)
    stolen = other.answer(message)
    assert stolen.messages[0][0].metadata.reply_to_message_id == message_id
    stolen.messages[0][0].metadata.src_node_id = other.node_id
    assert other.push(message_id, pi.facts(pulled), stolen).status in (400, 409)
    assert "uplink" not in {row["phase"] for row in lab.rows.phases()}
    assert pi.push(message_id, pi.facts(pulled), pi.answer(message)).status == 200


def test_a_reply_that_names_another_message_is_refused(running: Running, lab: Lab, pi: Pi) -> None:
    """The header and the message have to agree; a header that names no message of this node is refused before the body."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    reply = pi.push("other", pi.facts(pulled), pi.answer(message_in(pulled)))
    assert (reply.status, message_id in reply.data["error"]) == (409, False)


def test_a_reply_is_one_message(running: Running, lab: Lab, pi: Pi) -> None:
    """Neither none nor two."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    message = message_in(pulled)
    TaskIdentity.node_id = pi.node_id
    for messages in ([], [answer(message, 0.1), answer(message, 0.2)]):
        reply = pi.push(message_id, pi.facts(pulled), Bundle.of(messages))
        assert (reply.status, "exactly one" in reply.data["error"]) == (400, True)


def test_objects_that_are_none_of_flowers_are_refused(running: Running, lab: Lab, pi: Pi) -> None:
    """They fit their hashes, and Flower's store refuses them all the same: 400."""
    import hashlib  # noqa: PLC0415

    from flwr.proto.message_pb2 import ObjectTree  # noqa: PLC0415

    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    proto = pi.answer(message_in(pulled)).messages[0][0]
    tree = ObjectTree(object_id=hashlib.sha256(b"anything").hexdigest())
    reply = pi.push(message_id, pi.facts(pulled), Bundle({}, ((proto, tree),), {tree.object_id: b"anything"}))
    assert reply.status == 400
    assert "uplink" not in {row["phase"] for row in lab.rows.phases()}


def test_an_error_reply_marks_what_failed(running: Running, lab: Lab, pi: Pi) -> None:
    """The app raised: the reply reaches the ServerApp with its reason."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    TaskIdentity.node_id = pi.node_id
    bundle = Bundle.of([Message(Error(0, "ValueError: no"), reply_to=message_in(pulled))])
    assert pi.push(message_id, pi.facts(pulled), bundle).status == 200
    assert collect(running, lab, message_id).error.reason == "ValueError: no"


def test_a_pi_that_booted_in_the_past_can_join(running: Running, tmp_path: Path) -> None:
    """Its wall clock says 2021; what it signs is dated by the server's clock, and it knows by how much it is off."""
    past = Clock(wall_ns=lambda: SYSTEM_CLOCK.wall_ns() - 5 * 365 * 86400 * 10**9)
    pi = Pi(running, tmp_path, 0, past)
    try:
        pi.join()
        assert pi.pull().status == 204
        assert pi.key.wall_offset_s == pytest.approx(5 * 365 * 86400, abs=5)
    finally:
        pi.leave()


def test_a_key_is_kept_between_runs(running: Running, tmp_path: Path) -> None:
    """The same file gives the same node, while it still counts as online too; nobody else can read or use it meanwhile."""
    first = Pi(running, tmp_path, 0)
    with pytest.raises(HostError, match="another client of this host uses this key; give each client its own --name"):
        Pi(running, tmp_path, 0)
    first.connection.close()  # no goodbye: the process was killed
    first.key.release()
    again = Pi(running, tmp_path, 0)
    assert again.node_id == first.node_id
    assert (tmp_path / "pi-0" / "node.key").stat().st_mode & 0o077 == 0
    for one in (first, again):
        one.leave()


def test_transfers_join_what_both_ends_know(running: Running, lab: Lab, pi: Pi, other: Pi) -> None:
    """The client's part comes with a later request and completes the row; another client's word is not taken."""
    pi.join()
    other.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled)))
    told = {
        "message_id": message_id, "direction": "downlink", "client_start_raw_ns": 5, "client_end_raw_ns": 7,
        "wire_up_bytes": 100, "wire_down_bytes": 2000, "new_connection": False,
    }  # fmt: skip
    assert pi.pull(transfers=[told, told]).status == 204
    (row,) = lab.rows["transfers.csv"]
    assert (row["client"], row["direction"], row["client_end_raw_ns"], row["status"]) == ("pi-0", "downlink", 7, "ok")
    assert row["sender_host"] == "server"
    assert row["server_start_raw_ns"] < row["server_end_raw_ns"]
    running.call(lab.transfers.close)
    assert [row["direction"] for row in lab.rows["transfers.csv"]] == ["downlink", "uplink"]
    assert "never came" in lab.rows["transfers.csv"][1]["detail"]


def test_a_transfer_of_another_client_is_not_lost(running: Running, lab: Lab, pi: Pi, other: Pi) -> None:
    """Somebody else's word about it changes nothing: the row is still written in the end."""
    pi.join()
    other.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled)))
    told = {
        "message_id": message_id, "direction": "downlink", "client_start_raw_ns": 5, "client_end_raw_ns": 7,
        "new_connection": False,
    }  # fmt: skip
    other.pull(transfers=[told])
    running.call(lab.transfers.close)
    assert {row["direction"] for row in lab.rows["transfers.csv"]} == {"downlink", "uplink"}


def test_a_client_that_was_missing_is_taken_back_when_it_asks(running: Running, lab: Lab, pi: Pi) -> None:
    """Also where Flower had dropped its node: it is asked again from then on, and how long it was away is a row."""
    pi.join()
    assert lab.state.deactivate_node(pi.node_id)
    lab.presence.lose(pi.node_id)
    assert nodes(running, lab) == []
    assert pi.pull().status == 204
    assert nodes(running, lab) == [pi.node_id]
    (row,) = lab.rows["events.csv"]
    assert (row["event"], row["client"]) == ("returned", "pi-0")
    assert 0 < row["duration_s"] < 60


def nodes(running: Running, lab: Lab) -> list[int]:
    """What the ServerApp is told."""
    answer = running.run(lab.desk._answer(json.dumps(["nodes", {}]).encode(), lab.token))
    return [int(node_id) for node_id in answer["node_ids"]]


def test_a_client_that_joins_again_is_the_same(running: Running, lab: Lab, pi: Pi) -> None:
    """Its process was started again: a row says so, and the message that the one before had not answered comes once more."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    assert message_in(pi.pull()).metadata.message_id == message_id
    pi.join()
    assert message_in(pi.pull()).metadata.message_id == message_id
    (row,) = lab.rows["events.csv"]
    assert (row["event"], row["client"], row["detail"]) == ("joined_again", "pi-0", "its process was started again")
