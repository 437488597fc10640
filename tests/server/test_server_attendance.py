"""Who was missing is taken back at the first request that proves to be his, over either transport."""

import httpx
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node

from tests.server.lab import Lab, Running
from tests.server.pi import Pi, instruct


def returned(lab: Lab) -> list[object]:
    return [row["client"] for row in lab.rows["events.csv"] if row["event"] == "returned"]


def test_a_request_for_work_brings_a_client_back(running: Running, lab: Lab, pi: Pi) -> None:
    """One row, at the first of two requests, and it is asked again."""
    pi.join()
    running.call(lab.presence.lose, pi.node_id)
    assert lab.presence.away() == {pi.node_id}
    pi.pull()
    pi.pull()
    assert returned(lab) == ["pi-0"]
    assert lab.presence.away() == set()


def test_so_does_one_of_flowers_own_requests(running: Running, lab: Lab, pi: Pi) -> None:
    """With the transport `objects` a client that goes on after a pause asks for its message with Flower's."""
    pi.join()
    instruct(running, lab, pi.node_id)
    running.call(lab.presence.lose, pi.node_id)
    assert pi.node.pull_message() is not None
    assert returned(lab) == ["pi-0"]
    assert lab.presence.away() == set()


def test_a_request_that_is_not_signed_brings_nobody_back(running: Running, lab: Lab, pi: Pi) -> None:
    """It names the client's key, which is public, and has no signature of its own."""
    pi.join()
    running.call(lab.presence.lose, pi.node_id)
    headers = {**pi.key.headers(), "content-type": "application/protobuf"}
    signature = next(name for name in headers if "signature" in name.lower())
    headers[signature] = "AAAA"
    body = PullMessagesRequest(node=Node(node_id=pi.node_id)).SerializeToString()
    refused = httpx.post(f"http://{running.address}/v1/fleet/pull-messages", content=body, headers=headers)
    assert refused.status_code == 401, refused.text
    assert returned(lab) == []
    assert lab.presence.away() == {pi.node_id}
