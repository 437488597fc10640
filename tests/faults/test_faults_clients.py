"""Clients that fail while a run goes on: what it costs, what is on record, and who is taken back."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from analysis.absences import absence_warnings
from analysis.derive import derive
from analysis.load import Run, load_run
from tests.faults.fault_network import FaultNetwork, wait_until

PARAMETERS = 125_000
"""0.5 MB: a second at 4 Mbit/s."""


def replied(run: Run) -> list[tuple[int, int]]:
    """Clients selected and replied, by round."""
    rounds = run["rounds"]
    return list(zip(rounds["clients_selected"].dropna(), rounds["clients_replied"].dropna(), strict=True))


def test_an_outage_costs_time_and_not_the_round(tmp_path: Path) -> None:
    """The link goes down in the middle of a downlink, and later of an uplink, until the transfer has been given up: both are
    tried again over a new connection, each attempt is a row with what was seen, and no reply is missing.
    """
    with FaultNetwork(
        tmp_path,
        2,
        {"num_server_rounds": 2, "parameters": PARAMETERS},
        uplink=4,
        downlink=4,
        server={"round_deadline_s": 60},
    ) as net:
        wait_until(lambda: net.received_bytes(0) > 2 * PARAMETERS, "half of the downlink")
        net.network.set_link(0, up=False)
        wait_until(lambda: "pull failed" in net.log("client-0"), "the client to give up")
        net.network.set_link(0, up=True)
        net.wait_for_row("transfers", client="client-0", direction="downlink", attempt="2", status="ok")
        net.wait_for_row("phases", client="client-0", round="2", message_type="train", phase="queue")
        before = net.sent_bytes(0)
        wait_until(lambda: net.sent_bytes(0) > before + 2 * PARAMETERS, "half of the uplink")
        net.network.set_link(0, up=False)
        wait_until(lambda: "push failed" in net.log("client-0"), "the client to give up")
        net.network.set_link(0, up=True)
        assert net.wait_for_end()["status"] == "complete"
        assert net.rows("events") == []
    run = derive(load_run(tmp_path / "runs" / "run"))
    assert replied(run) == [(2, 2), (2, 2)]
    transfers = run["transfers"]
    broken = transfers[transfers["status"] == "failed"]
    (down, up) = broken.sort_values("round").to_dict("records")
    assert (down["direction"], down["round"], down["attempt"], down["sender_host"]) == ("downlink", 1, 1, "server")
    assert down["detail"].startswith("connection stalled: nothing acknowledged for")
    assert (up["direction"], up["round"], up["attempt"]) == ("uplink", 2, 1)
    assert up["detail"].startswith("stalled: the server's host acknowledged nothing for")
    for row in (down, up):
        again = transfers[(transfers["message_id"] == row["message_id"]) & (transfers["direction"] == row["direction"])]
        assert list(again["attempt"]) == [1, 2]
        assert list(again["status"]) == ["failed", "ok"]
    lost = run["timeline"][(run["timeline"]["phase"] == "uplink") & (run["timeline"]["status"] == "failed")]
    assert (lost["duration_s"] > 3.0).all()  # the time of the outage belongs to the uplink, and to no other phase
    assert len(lost) == 1


def test_a_dead_client_costs_one_deadline_and_is_taken_back_as_the_same(tmp_path: Path) -> None:
    """Killed while it trains: the round goes on at the limit of its phase, the next ones do not ask it, and when
    it is started again it takes part once more, under its name.
    """
    deadlines = {"train_s": 2.0, "minimum_replies": 1}
    app = {"num_server_rounds": 1000, "parameters": 1000, "seconds": 0.4, "min_nodes": 1}
    with FaultNetwork(tmp_path, 2, app, deadlines=deadlines, server={"round_deadline_s": 60}) as net:
        net.wait_for_row("phases", client="client-0", phase="queue", message_type="train", round="2")
        os.kill(net.pid(0), signal.SIGKILL)
        missing = net.wait_for_row("events", event="missing")
        after = net.wait_for_row("phases", client="client-1", phase="collect", round=str(int(missing["round"]) + 2))
        net.start_client(0)
        back = net.wait_for_row("events", event="returned")
        again = net.wait_for_row("events", event="joined_again")
        taken = str(int(back["round"]) + 2)
        net.wait_for_row("phases", client="client-0", phase="collect", round=taken)
        net.server.send_signal(signal.SIGINT)
        manifest = net.wait_for_end(130)
    assert (missing["client"], missing["phase"], missing["symptom"]) == (
        "client-0",
        "train",
        "connection closed by the client",
    )
    assert missing["detail"] == "connection closed by the client (deadlines.train-s = 2)"
    assert float(missing["duration_s"]) >= 2.0
    assert (back["client"], again["client"]) == ("client-0", "client-0")
    assert again["detail"] == "its process was started again"
    assert manifest["missing"] == {"client-0": {"train: connection closed by the client": 1}}
    assert set(manifest["hosts"]) == {"server", "client-0", "client-1"}
    run = derive(load_run(tmp_path / "runs" / "run"))
    rounds = run["rounds"].set_index("round")["clients_selected"]
    assert rounds[int(after["round"])] == 1
    assert rounds[int(taken)] == 2
    (line,) = absence_warnings(run)
    number = missing["round"]
    assert line.startswith(f"client-0 was missing in round {number}: train: connection closed by the client; back after")


@pytest.fixture
def full_disk(tmp_path: Path) -> Path:
    """A file system of a few blocks for a client's state, of which none is left when the client has made its key."""
    folder = tmp_path / "state" / "client-0"
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    return folder


def test_a_trainer_that_dies_or_hangs_and_a_full_disk_end_nobody(tmp_path: Path, full_disk: Path) -> None:
    """The trainer is killed in one round and stopped in another: each costs its client that reply, which says why, and the
    next message is answered by a new trainer. The client's disk is full all the while, which it says once.
    """
    deadlines = {"train_s": 3.0}
    app = {"num_server_rounds": 3, "parameters": 1000, "seconds": 1.0}
    try:
        with FaultNetwork(tmp_path, 2, app, deadlines=deadlines) as net:
            wait_until((full_disk / "node.pub").exists, "both halves of the key")
            with (full_disk / "filler").open("wb", buffering=0) as filler:
                try:
                    while filler.write(bytes(512)):
                        pass
                except OSError:
                    pass
            wait_for_training(net, 1)
            os.kill(net.trainer(0), signal.SIGKILL)
            first = net.wait_for_row("events", event="missing", round="1")
            wait_for_training(net, 2)
            os.kill(net.trainer(0), signal.SIGSTOP)
            second = net.wait_for_row("events", event="missing", round="2")
            manifest = net.wait_for_end()
            said = net.log("client-0")
    finally:
        subprocess.run(["umount", "--lazy", str(full_disk)], check=True)
    assert manifest["status"] == "complete"
    assert (first["phase"], first["symptom"], first["client"]) == ("train", "error reply", "client-0")
    assert "killed by SIGKILL, probably because the host ran out of memory" in first["detail"]
    assert (second["phase"], second["symptom"]) == ("train", "error reply")
    assert "the trainer was silent for 2.7 s" in second["detail"]
    assert said.count("the client's own copy cannot be written: No space left on device; the run goes on") == 1
    run = derive(load_run(tmp_path / "runs" / "run"))
    trained = run["timeline"][(run["timeline"]["client"] == "client-0") & (run["timeline"]["phase"] == "train")]
    assert list(trained["status"]) == ["failed", "failed", "ok"]


def wait_for_training(net: FaultNetwork, round_: int) -> None:
    """Wait until the message of a round has been read by both clients, which then train for a second."""
    net.wait_for_row("phases", client="client-0", phase="queue", message_type="train", round=str(round_))
