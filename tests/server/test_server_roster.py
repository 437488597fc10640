"""Who may take part, and under which name."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fltestbed.errors import HostError
from fltestbed.measure.host import toolkit_versions
from fltestbed.measure.manifest import read_manifest
from fltestbed.measure.mapping import ClockSample
from fltestbed.server.roster import JoinRefused
from tests.server.lab import Lab


def facts(**change: Any) -> dict[str, Any]:
    good = {
        "name": "pi-1",
        "link": "5g",
        "interface": "wwan0",
        "partition": 0,
        "host": {"model": "Pi"},
        "wall_offset_s": 0.5,
    }
    return good | change


def hosts(folder: Path) -> dict[str, Any]:
    return dict(read_manifest(folder)["hosts"])


def test_a_client_that_joins_is_in_the_manifest(lab: Lab, tmp_path: Path) -> None:
    """With its host, its link, its interface, its partition and how far off its wall clock was."""
    client = lab.roster.join(1, facts())
    assert (client.name, client.link, client.interface, client.is_ours) == ("pi-1", "5g", "wwan0", True)
    assert hosts(tmp_path)["pi-1"] == {
        "model": "Pi", "link": "5g", "interface": "wwan0", "partition": 0, "wall_offset_s": 0.5,
        "clock_interface": None,
    }  # fmt: skip
    assert (lab.roster.count(), lab.roster.names_present()) == (1, ["pi-1"])


@pytest.mark.parametrize("partition", [2, 3, 2**31 - 1])
def test_a_partition_past_the_end_is_refused(lab: Lab, partition: int) -> None:
    """Two clients have partitions 0 and 1; the message says so."""
    with pytest.raises(JoinRefused, match=rf"partition {partition} is past the end: lab has 2 clients, .* 0 to 1"):
        lab.roster.join(1, facts(partition=partition))


def test_what_another_client_has_is_taken(lab: Lab) -> None:
    """Neither its name nor its partition; the message names who has it."""
    lab.roster.join(1, facts())
    with pytest.raises(JoinRefused, match="there is a client pi-1 already; give this one another --name"):
        lab.roster.join(2, facts(partition=1))
    with pytest.raises(JoinRefused, match="partition 0 is taken by pi-1; give another --partition"):
        lab.roster.join(2, facts(name="pi-2"))
    assert lab.roster.join(2, facts(name="pi-2", partition=1)).name == "pi-2"


def test_a_client_may_come_back(lab: Lab) -> None:
    """The same node with the same name: it was restarted, and keeps its clock mapping."""
    assert lab.roster.join(1, facts()) is lab.roster.join(1, facts())
    assert lab.roster.count() == 1


def test_a_client_that_comes_back_under_another_name_has_that_name(lab: Lab) -> None:
    """The rows that follow bear the name and the link that it was given this time."""
    lab.roster.join(1, facts())
    client = lab.roster.join(1, facts(name="pi-9", link="wifi"))
    assert (client.name, client.link) == ("pi-9", "wifi")


def test_a_client_that_has_left_makes_room(lab: Lab) -> None:
    """Its name and its partition are free again."""
    lab.roster.join(1, facts())
    lab.roster.leave(1)
    lab.roster.leave(1)
    assert lab.roster.names_present() == []
    lab.roster.join(2, facts())
    assert lab.roster.count() == 1


UNSAFE = (
    "", ".", "..", "../x", "a/b", "/etc", "-rf", "=1+1", "@x", "+1", "a,b", 'a"b', "a\nb", "a\n", "a b", "é",
    "x" * 65, 7, None,
)  # fmt: skip


@pytest.mark.parametrize("key", ["name", "link"])
def test_a_name_is_safe_as_file_cell_and_formula(lab: Lab, key: str) -> None:
    """No path, no separator, no line break, nothing that a spreadsheet runs; the message names the key."""
    for value in UNSAFE:
        with pytest.raises(JoinRefused, match=f"^{key}: "):
            lab.roster.join(1, facts(**{key: value}))


@pytest.mark.parametrize("value", ["wlan0\nwlan1", "=1+1", "wlan0,5g", ""], ids=repr)
def test_an_interface_is_as_safe_as_a_name(lab: Lab, value: str) -> None:
    """It is a cell of clock_samples.csv and system.csv."""
    with pytest.raises(JoinRefused, match=r"^interface: "):
        lab.roster.join(1, facts(interface=value))


def test_a_client_cannot_be_called_server(lab: Lab) -> None:
    """Its stamps would be taken for the server's, unmapped, and its host description would replace the server's."""
    with pytest.raises(JoinRefused, match="server"):
        lab.roster.join(1, facts(name="server"))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_wall_offset_is_a_number(lab: Lab, value: float) -> None:
    """What JSON cannot hold does not reach the manifest."""
    with pytest.raises(JoinRefused, match=r"^wall_offset_s: "):
        lab.roster.join(1, facts(wall_offset_s=value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition", -1),
        ("partition", "x"),
        ("partition", 2**31),
        ("interface", "i" * 65),
        ("host", []),
        ("host", None),
        ("wall_offset_s", "soon"),
    ],
)
def test_what_cannot_be_is_refused_by_name(lab: Lab, key: str, value: Any) -> None:
    """The message begins with the key."""
    with pytest.raises(JoinRefused, match=f"^{key}: "):
        lab.roster.join(1, facts(**{key: value}))


def test_hello_says_what_a_client_needs(lab: Lab) -> None:
    """The run, the app by its hash, how many clients, and what the sockets should use."""
    hello = lab.roster.hello(1, {"name": "pi-1", "versions": toolkit_versions()})
    assert hello["run_id"] == str(lab.app.run_id)  # as text: it has more digits than a JSON number keeps
    assert (hello["fab_hash"], hello["clients"], hello["hold_s"]) == (lab.app.fab_hash, 2, 0.2)
    assert hello["congestion_control"] == "cubic"
    json.dumps(hello, allow_nan=False)


@pytest.mark.parametrize("package", ["fltestbed", "flwr"])
@pytest.mark.parametrize("version", [None, "0.0.1", 1, ["x"]])
def test_another_version_is_refused(lab: Lab, package: str, version: Any) -> None:
    """Both versions are in the message, and what to do."""
    own = toolkit_versions()
    with pytest.raises(JoinRefused, match=rf"client runs {package} .*, the server {own[package]}; install the same on both"):
        lab.roster.hello(1, {"name": "pi-1", "versions": own | {package: version}})


@pytest.mark.parametrize("versions", [None, [], "1.0", {}])
def test_a_client_that_tells_no_versions_is_refused(lab: Lab, versions: Any) -> None:
    """As one of an unknown version."""
    with pytest.raises(JoinRefused, match="the client runs fltestbed unknown, the server"):
        lab.roster.hello(1, {"name": "pi-1", "versions": versions})


def test_another_version_may_join_where_the_experiment_says_so(tmp_path: Path) -> None:
    """With mixed-versions, and the manifest is marked; what a client says cannot forge a line of it."""
    (tmp_path / "mixed").mkdir()
    mixed = Lab(tmp_path / "mixed", mixed_versions=True)
    mixed.desk.close()
    mixed.roster.hello(1, {"name": "pi-1", "versions": toolkit_versions() | {"flwr": "1.40.0\x1b[2J\n"}})
    (mark,) = read_manifest(tmp_path / "mixed")["marks"]
    assert mark == f"pi-1: the client runs flwr 1.40.0??2J?, the server {toolkit_versions()['flwr']}"


def test_a_name_that_is_none_is_refused(lab: Lab) -> None:
    """Before anything else is looked at."""
    with pytest.raises(JoinRefused, match="the client's name is not one"):
        lab.roster.hello(1, {"name": "pi\n1", "versions": toolkit_versions()})


def test_work_is_for_who_has_joined(lab: Lab) -> None:
    """A node that is registered and no more gets none."""
    with pytest.raises(JoinRefused, match="has not joined"):
        lab.roster.check_joined(1)
    lab.roster.join(1, facts())
    lab.roster.check_joined(1)


def test_a_stock_supernode_counts_when_it_is_online(lab: Lab, tmp_path: Path) -> None:
    """It never joins; it gets a name when it is first sent something, and keeps it."""
    node = lab.node(b"k1")
    assert lab.roster.count() == 1
    client = lab.roster.client(node)
    assert (client.name, client.is_ours) == ("supernode-0", False)
    assert lab.roster.client(node) is client
    assert hosts(tmp_path)["supernode-0"]["kind"] == "stock flower-supernode"


def test_a_client_of_ours_counts_when_it_has_joined(lab: Lab) -> None:
    """Online is not ready: the trainer is still loading its data."""
    node = lab.node(b"k1")
    lab.roster.hello(node, {"name": "pi-1", "versions": toolkit_versions()})
    assert lab.roster.count() == 0
    lab.roster.join(node, facts())
    assert lab.roster.count() == 1


def test_waiting_ends_when_all_are_there(lab: Lab) -> None:
    """And again when all have left; neither waits for its time to be over."""

    async def test() -> None:
        waiting = asyncio.create_task(lab.roster.wait_for(2, 60))
        for node, name in enumerate(("pi-1", "pi-2")):
            await asyncio.sleep(0)
            assert not waiting.done()
            lab.roster.join(node, facts(name=name, partition=node))
        assert await asyncio.wait_for(waiting, 5)
        leaving = asyncio.create_task(lab.roster.wait_until_empty(60))
        lab.roster.leave(0)
        await asyncio.sleep(0)
        assert not leaving.done()
        lab.roster.leave(1)
        assert await asyncio.wait_for(leaving, 5)

    asyncio.run(test())


def test_waiting_has_an_end(lab: Lab) -> None:
    """False when the time is over, and at once when the run has failed; the first failure is kept."""
    assert not asyncio.run(lab.roster.wait_for(1, 0.05))
    lab.roster.fail(HostError("first"))
    lab.roster.fail(HostError("second"))
    assert not asyncio.run(asyncio.wait_for(lab.roster.wait_for(1, 60), 5))
    assert str(lab.roster.failure) == "first"


def test_a_client_whose_host_was_started_again_has_another_clock(lab: Lab) -> None:
    """The same client with a mapping that starts afresh; one whose process alone was started again keeps what is known."""
    client = lab.roster.join(1, facts(boot="monday"))
    client.mapping.add(ClockSample(1000, 2000, 2000, 1100))
    assert lab.roster.join(1, facts(boot="monday")) is client
    assert (client.joins, client.mapping.at(1000) is None) == (2, False)
    assert lab.roster.join(1, facts(boot="tuesday")) is client
    assert client.mapping.at(1000) is None
