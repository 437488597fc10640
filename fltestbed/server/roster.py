"""Who takes part in a run: the clients that have joined, and the stock SuperNodes that are there."""

import asyncio
import contextlib
import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fltestbed.config import Experiment
from fltestbed.config_file import NAME_PATTERN
from fltestbed.flower.apps import App
from fltestbed.flower.superlink import Superlink
from fltestbed.measure.host import package_versions, toolkit_versions
from fltestbed.measure.manifest import Manifest
from fltestbed.server.facts import Interface, first_problem
from fltestbed.server.host_facts import HostFactsError, read_host
from fltestbed.server.tasks import SERVER, Client

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


SUPERNODE = "supernode-"
TRAINER_SHARE = 0.9
"""Of a limit, after which a client stops its trainer, so that the error reply that says why comes in time."""
HOSTS_BESIDE_CLIENTS, HOSTS_OF_A_CLIENT = 64, 4
"""How many names a run takes in: each stands in the manifest."""


class JoinRefused(ValueError):
    """A client that cannot take part; the text says why and what to do."""


class NotJoined(JoinRefused):
    """A client that has to introduce itself: it is new, or the server has been started again since it did."""


class JoinFacts(BaseModel):
    """Who joins, from where."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name
    link: Name
    interface: Interface
    partition: Annotated[int, Field(ge=0, lt=1 << 31)]
    host: dict[str, Any]
    boot: Annotated[str, Field(max_length=64)] = ""
    wall_offset_s: Annotated[float, Field(gt=-1e12, lt=1e12, allow_inf_nan=False)]
    clock_interface: Interface | None = None


def read_join(facts: dict[str, Any]) -> tuple[JoinFacts, dict[str, Any]]:
    """What a client says when it joins, and its host for the manifest.

    Raises
    ------
    JoinRefused
        A value is missing or cannot be; the message names it.
    """
    try:
        join = JoinFacts.model_validate(facts)
        return join, read_host(join.host)
    except ValidationError as error:
        raise JoinRefused(first_problem(error)) from error
    except HostFactsError as error:
        raise JoinRefused(str(error)) from error


class Roster:
    """The nodes of one run.

    Parameters
    ----------
    experiment : Experiment
    superlink : Superlink
    app : App
        What is run.
    manifest : Manifest
        Gets what each host says of itself.
    link : str
        Link of stock SuperNodes, which cannot name theirs.
    """

    def __init__(self, experiment: Experiment, superlink: Superlink, app: App, manifest: Manifest, link: str) -> None:
        self._experiment = experiment
        self._superlink = superlink
        self.app = app
        self._clients: dict[int, Client] = {}
        self._partitions: dict[int, int] = {}
        self._present: set[int] = set()
        self._ours: set[int] = set()
        self._names: set[str] = set()
        self._changed = asyncio.Event()
        self._strangers = 0
        self._link = link
        self.manifest = manifest
        self.failure: Exception | None = None
        self.has_failed = asyncio.Event()

    def __getitem__(self, node_id: int) -> Client:
        return self._clients[node_id]

    @property
    def hold_s(self) -> float:
        """Longest time that a request for work is held; with connection.keep-warm-s no longer than that."""
        keep_warm_s = self._experiment.connection.keep_warm_s
        return min(self._experiment.server.hold_s, keep_warm_s or math.inf)

    @property
    def _longest_compute_s(self) -> float:
        """The limit of a call of the ClientApp, whatever it is asked for."""
        deadlines = self._experiment.deadlines
        limits = [limit for limit in (deadlines.train_s, deadlines.evaluate_s) if limit is not None]
        return min(self._experiment.server.round_deadline_s, *limits) if limits else self._experiment.server.round_deadline_s

    @property
    def largest_message_bytes(self) -> int:
        """What a client may announce for one reply."""
        return self._experiment.server.largest_message_bytes

    def hello(self, node_id: int, facts: dict[str, Any]) -> dict[str, Any]:
        """What a client has to know before it can join; refuses one that cannot work with this server."""
        self._ours.add(node_id)
        name = str(facts.get("name"))
        if not re.fullmatch(NAME_PATTERN, name):
            raise JoinRefused(
                "--name: the client's name is not one: letters, digits, dots, dashes and underscores alone, 64 at most"
            )
        self._check_versions(name, facts.get("versions"))
        self._check_owner(node_id, name)
        return {
            "run": self.manifest.run,
            "versions": package_versions(),
            "run_id": str(self.app.run_id),
            "first_run_id": self.manifest.run_id,
            "fab_id": self.app.fab_id,
            "fab_version": self.app.fab_version,
            "fab_hash": self.app.fab_hash,
            "clients": self._experiment.clients,
            "transport": self._experiment.transport,
            "hold_s": self.hold_s,
            "keep_warm_s": self._experiment.connection.keep_warm_s,
            "deadline_s": self._experiment.server.round_deadline_s,
            "patience_s": max(self._experiment.server.round_deadline_s, self._experiment.deadlines.return_s),
            "trainer_limit_s": TRAINER_SHARE * self._longest_compute_s,
            "congestion_control": self._experiment.congestion_control,
            "measured": not self._experiment.instrumentation.off,
            "clock_interval_s": self._experiment.clock.interval_s,
            "probes": self._experiment.probes.model_dump(mode="json", exclude={"gnb_log"}),
            "compression": self._experiment.compression.uplink_codec,
            "largest_message_bytes": self._experiment.server.largest_message_bytes,
        }

    def join(self, node_id: int, facts: dict[str, Any]) -> Client:
        """A client is warm and waits for work.

        Raises
        ------
        JoinRefused
            Its partition is past the end or taken, or its name is.
        """
        join, described = read_join(facts)
        if join.partition >= self._experiment.clients:
            last = self._experiment.clients - 1
            raise JoinRefused(
                f"partition {join.partition} is past the end: {self._experiment.name} has {self._experiment.clients} "
                f"clients, so --partition is 0 to {last}"
            )
        self._check_owner(node_id, join.name)
        if join.name == SERVER or join.name.startswith(SUPERNODE):
            raise JoinRefused(f"the name {join.name} is the testbed's own; give this client another --name")
        for other, client in self._clients.items():
            if other != node_id and other in self._present:
                if client.name == join.name:
                    raise JoinRefused(f"there is a client {join.name} already; give this one another --name")
                if self._partitions[other] == join.partition:
                    raise JoinRefused(f"partition {join.partition} is taken by {client.name}; give another --partition")
        self._names.add(join.name)
        most = HOSTS_BESIDE_CLIENTS + HOSTS_OF_A_CLIENT * self._experiment.clients
        if len(self._names) > most:
            self._names.discard(join.name)
            raise JoinRefused(
                f"{most} hosts have joined this run under as many names; give this client one that it had before"
            )
        client = self._clients.setdefault(node_id, Client(join.name, join.link))
        client.join(join.boot)
        client.name, client.link, client.interface = join.name, join.link, join.interface
        self._partitions[node_id] = join.partition
        self._present.add(node_id)
        self.manifest.set_host(
            client.name,
            described | {
                "link": join.link, "interface": join.interface, "partition": join.partition,
                "wall_offset_s": join.wall_offset_s, "clock_interface": join.clock_interface,
            },
        )  # fmt: skip
        self._changed.set()
        return client

    def _check_versions(self, name: str, versions: object) -> None:
        """Refuse a client that runs another fltestbed or flwr, unless the experiment says that it may."""
        theirs = versions if isinstance(versions, dict) else {}
        for package, own in toolkit_versions().items():
            other = re.sub(r"[^\w.+-]", "?", str(theirs.get(package, "unknown")))[:32]
            if other == own:
                continue
            difference = f"the client runs {package} {other}, the server {own}"
            if not self._experiment.server.mixed_versions:
                raise JoinRefused(f"{difference}; install the same on both, or say mixed-versions = true under [server]")
            self.manifest.mark(f"{name}: {difference}")

    def _check_owner(self, node_id: int, name: str) -> None:
        owner = self._superlink.owner_of(node_id)
        if owner is not None and owner != name:
            raise JoinRefused(
                f"this key is registered for {owner}, not for {name}; give the client --name {owner}, or the key of {name}"
            )

    def boot_of(self, node_id: int) -> str | None:
        """The boot of a client that has joined before; None for any other node."""
        client = self._clients.get(node_id)
        return None if client is None else client.boot

    def check_joined(self, node_id: int) -> None:
        """Raise `JoinRefused` for a node that asks for work before it has joined."""
        if node_id not in self._clients:
            raise NotJoined("this client has not joined the run")

    def leave(self, node_id: int) -> None:
        """A client has told everything and goes."""
        self._present.discard(node_id)
        self._changed.set()

    def client(self, node_id: int) -> Client:
        """The node's client; a node that never joined is a stock SuperNode."""
        if node_id not in self._clients:
            self._clients[node_id] = Client(f"{SUPERNODE}{self._strangers}", self._link, is_ours=False)
            self._strangers += 1
            self.manifest.set_host(self._clients[node_id].name, {"kind": "stock flower-supernode", "node_id": str(node_id)})
        return self._clients[node_id]

    def fail(self, error: Exception) -> None:
        """Something happened in a route that ends the run."""
        self.failure = self.failure or error
        self.has_failed.set()
        self._changed.set()

    def online_nodes(self) -> set[int]:
        """Nodes that are online and take part: clients that have joined, and stock SuperNodes; not one that was refused."""
        return self._superlink.online_nodes(self.app.run_id) - (self._ours - self._clients.keys())

    def count(self) -> int:
        """Nodes that are ready: clients that have joined, and stock SuperNodes that are online."""
        return len(self._present | (self.online_nodes() - self._ours))

    def offline_nodes(self) -> set[int]:
        """Clients that have joined and not left, and that Flower counts as gone."""
        return self._present - self.online_nodes()

    def names_of(self, nodes: set[int]) -> list[str]:
        """Names of those of the nodes that are clients."""
        return sorted(self._clients[node_id].name for node_id in nodes if node_id in self._clients)

    def names_present(self) -> list[str]:
        """Names of the clients that have joined and not left."""
        return sorted(self._clients[node_id].name for node_id in self._present)

    async def wait_for(self, number: int, timeout_s: float) -> bool:
        """Wait until so many nodes are ready; False when the time is over or the run has failed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.count() < number:
            if not await self._wait_for_change(deadline):
                return False
        return True

    async def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until all clients have left; False when some have not in that time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._present:
            if not await self._wait_for_change(deadline):
                return False
        return True

    async def _wait_for_change(self, deadline: float) -> bool:
        """Wait for a join or a leave, or half a second: SuperNodes come without a word to the roster."""
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0 or self.failure is not None:
            return False
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(left, 0.5))
        return True
