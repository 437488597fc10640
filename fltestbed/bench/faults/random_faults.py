"""`fltestbed bench faults --random N`: so many random faults, one after the other, against one long run.

Each round begins when the fault of the round before has been undone (a client was started again, a link is up, the server
goes on), not when its victim is back. In each round one fault strikes at a random moment, whatever is under way then. What
is drawn depends on the seed alone; what it meets does not.

As a program it takes the number of faults, the seed and a folder, and prints what came out as JSON, on one line.
"""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from fltestbed.bench.faults import checks
from fltestbed.bench.faults.app import write_app
from fltestbed.bench.faults.average import wrong_averages
from fltestbed.bench.faults.disk import fill, make_room, small_disk
from fltestbed.bench.faults.gate import configure_gate, forget, hold, is_reached, release
from fltestbed.bench.faults.injector import GRACE_S
from fltestbed.bench.faults.lab import PORT, FaultLab, Missed, Plan, wait_until
from fltestbed.bench.faults.witness import RowWitness
from fltestbed.bench.leftovers import left_over
from fltestbed.bench.odd_clocks import OddClock, build_library
from fltestbed.config_file import validate
from fltestbed.errors import TestbedError
from fltestbed.links import LinkProfile
from fltestbed.scratch import scratch_folder

CLIENTS = 6
LEAST_ROUNDS = 50
PARAMETERS = 50_000
RATE_MBIT, QUEUE_KB = 5.0, 100
TRAIN_S = 0.4
LONGEST_DELAY_S = 1.6
"""About a round: 0.3 s for each transfer, and the training."""
LONGEST_ABSENCE_S = 4.0
LIMIT_S, ROUND_DEADLINE_S = 4.0, 12.0
RESTART_S = 30.0
"""For a server to come up again, with six clients on few processors."""
CLIENT_DISK, SERVER_DISK = "4m", "64m"
STEP_S = 3600

CLIENT_FAULTS = (
    "client-killed", "client-stopped", "link-down", "trainer-hung", "trainer-killed", "disk-full-client", "clock-stepped",
)  # fmt: skip
SERVER_FAULTS = ("server-killed", "serverapp-killed", "disk-full-server")
SERVER_SHARE = 0.12
"""Of the faults that are the server's."""

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Draw:
    """One fault, as it was drawn.

    Attributes
    ----------
    fault : str
    victim : int
        Client that is struck; of a fault of the server's it means nothing.
    delay_s : float
        From the beginning of the round.
    absence_s : float
        Until it is undone, where it has to be.
    """

    fault: str
    victim: int
    delay_s: float
    absence_s: float


@dataclass(frozen=True)
class RandomOutcome:
    """What came out.

    Attributes
    ----------
    struck : dict of str to int
        How often each fault struck.
    missing : dict of str to int
        Replies that rounds went on without, by phase and symptom.
    rounds, replies : int
        Rounds that were made whole, and replies that were accepted in them.
    sessions : int
        Of the server.
    averages : int
        Rounds whose model was computed again.
    rows : int
        Whole rows that the witness saw.
    reasons : tuple of str
        What does not hold.
    """

    struck: dict[str, int]
    missing: dict[str, int]
    rounds: int
    replies: int
    sessions: int
    averages: int
    rows: int
    seconds: float
    reasons: tuple[str, ...]


def draw(count: int, seed: int) -> list[Draw]:
    """Draw faults; the same for the same seed."""
    chance = random.Random(seed)
    return [
        Draw(
            chance.choice(SERVER_FAULTS if chance.random() < SERVER_SHARE else CLIENT_FAULTS), chance.randrange(CLIENTS),
            chance.uniform(0, LONGEST_DELAY_S), chance.uniform(0, LONGEST_ABSENCE_S),
        )
        for _ in range(count)
    ]  # fmt: skip


class _Storm:
    """One long run and what strikes it.

    Round 1 and those after the last fault are left alone.
    """

    def __init__(self, draws: list[Draw], folder: Path) -> None:
        self._draws = draws
        self._folder = folder
        self._shared = folder / "shared"
        self._rounds = max(LEAST_ROUNDS, len(draws) + 2)
        self._struck: dict[str, int] = {}
        self._has_stepped: set[int] = set()
        self.reasons: list[str] = []

    def run(self) -> RandomOutcome:
        """Run it to its end."""
        start = time.monotonic()
        rows = averages = 0
        with ExitStack() as stack:
            self._lab = lab = stack.enter_context(FaultLab(self._plan(stack)))
            for number in range(2, self._rounds + 1):
                hold(self._shared, configure_gate(number))
            with RowWitness(lab.run) as witness:
                try:
                    self._strike_all()
                except (Missed, TestbedError, OSError, psutil.Error) as error:
                    self.reasons.append(str(error))
                witness.look()
                rows = witness.rows
                self.reasons += witness.lost()
            if processes := left_over(lab.mark):
                self.reasons.append(f"left running: {'; '.join(processes)}")
            self.reasons += self._check(lab.run)
            if (lab.run / "phases.csv").exists():
                averages, wrong = wrong_averages(lab.run, self._shared)
                self.reasons += wrong
            replies = [message.is_accepted for message in checks.messages(lab.run)]
            rounds = len(checks.round_seconds(lab.run))
            sessions = len(lab.rows("sessions"))
            missing: dict[str, int] = {}
            for row in lab.rows("events", event="missing"):
                what = f"{row['phase']}: {row['symptom']}"
                missing[what] = missing.get(what, 0) + 1
        return RandomOutcome(
            struck=self._struck, missing=missing, rounds=rounds, replies=sum(replies), sessions=sessions, averages=averages,
            rows=rows, seconds=time.monotonic() - start, reasons=tuple(self.reasons),
        )  # fmt: skip

    def _strike_all(self) -> None:
        lab = self._lab
        lab.start_server()
        for number in range(CLIENTS):
            lab.start_client(number)
        self._wait_for_gate(2, RESTART_S)
        for round_, drawn in enumerate(self._draws, 2):
            release(self._shared, configure_gate(round_))
            time.sleep(drawn.delay_s)
            self._strike(drawn, round_ + 1)
            self._wait_for_gate(round_ + 1, ROUND_DEADLINE_S + GRACE_S)
        for number in range(2, self._rounds + 1):
            release(self._shared, configure_gate(number))
        left = self._rounds - len(self._draws)
        wait_until(lambda: lab.server.poll() is not None, "the run to end", left * (ROUND_DEADLINE_S + GRACE_S))
        clients = lab.clients.values()
        wait_until(lambda: all(client.poll() is not None for client in clients), "the clients to end", GRACE_S)
        statuses = [lab.server.returncode, *(client.returncode for client in clients)]
        if any(statuses):
            self.reasons.append(f"server and clients ended with {statuses}")

    def _wait_for_gate(self, round_: int, within_s: float) -> None:
        """Wait until the run has come to a round's beginning, or is over."""
        server = self._lab.server

        def is_there() -> bool:
            if server.poll() is not None:
                raise Missed(f"the server ended with status {server.returncode} before round {round_}")
            return is_reached(self._shared, configure_gate(round_))

        wait_until(is_there, f"round {round_} to begin", within_s)

    def _strike(self, drawn: Draw, next_round: int) -> None:
        if drawn.fault in SERVER_FAULTS:
            self._strike_server(drawn, next_round)
        else:
            drawn = self._fit(drawn)
            self._strike_client(drawn)
        self._struck[drawn.fault] = self._struck.get(drawn.fault, 0) + 1
        log.info("round %s: %s, client %s", next_round - 1, drawn.fault, drawn.victim)

    def _fit(self, drawn: Draw) -> Draw:
        """The next client, where this one has no trainer to strike; another fault, where its clock has stepped already."""
        for step in range(CLIENTS):
            victim = (drawn.victim + step) % CLIENTS
            try:
                self._lab.trainer(victim)
            except (Missed, psutil.Error):
                continue
            is_again = drawn.fault == "clock-stepped" and victim in self._has_stepped
            return replace(drawn, victim=victim, fault="client-stopped" if is_again else drawn.fault)
        raise Missed("no client has a trainer")

    def _strike_client(self, drawn: Draw) -> None:
        lab, victim = self._lab, drawn.victim
        pid = lab.pid(victim)
        match drawn.fault:
            case "client-killed":
                os.kill(pid, signal.SIGKILL)
                time.sleep(drawn.absence_s)
                lab.start_client(victim)
            case "client-stopped":
                os.kill(pid, signal.SIGSTOP)
                time.sleep(drawn.absence_s)
                os.kill(pid, signal.SIGCONT)
            case "link-down":
                lab.network.set_link(victim, up=False)
                time.sleep(drawn.absence_s)
                lab.network.set_link(victim, up=True)
            case "trainer-hung":
                os.kill(lab.trainer(victim), signal.SIGSTOP)
            case "trainer-killed":
                os.kill(lab.trainer(victim), signal.SIGKILL)
            case "disk-full-client":
                fill(lab.state(victim))
                time.sleep(drawn.absence_s)
                make_room(lab.state(victim))
            case "clock-stepped":
                self._has_stepped.add(victim)
                self._step_file(victim).touch()

    def _strike_server(self, drawn: Draw, next_round: int) -> None:
        lab = self._lab
        match drawn.fault:
            case "server-killed":
                app = lab.server_app()
                lab.server.kill()
                os.kill(app, signal.SIGKILL)
            case "serverapp-killed":
                os.kill(lab.server_app(), signal.SIGKILL)
            case "disk-full-server":
                fill(lab.plan.runs)
        server = lab.server
        wait_until(lambda: server.poll() is not None, "the struck server to end", ROUND_DEADLINE_S + GRACE_S)
        make_room(lab.plan.runs)
        time.sleep(drawn.absence_s)
        forget(self._shared, configure_gate(next_round))
        lab.resume_server()
        self._wait_for_gate(next_round, RESTART_S + ROUND_DEADLINE_S + GRACE_S)

    def _step_file(self, client: int) -> Path:
        return self._folder / f"step-{client}"

    def _check(self, run: Path) -> Iterator[str]:
        yield from checks.check_rows(run)
        yield from checks.check_named(run)
        yield from checks.check_rounds(run, ROUND_DEADLINE_S + GRACE_S)
        status = self._lab.manifest()["status"]
        if status != "complete":
            yield f"the manifest's status is {status}"
        rounds = len(checks.round_seconds(run))
        if rounds != self._rounds:
            yield f"{rounds} rounds were made whole, of {self._rounds}"

    def _plan(self, stack: ExitStack) -> Plan:
        folder = self._folder
        rate = {"rate-mbit": RATE_MBIT, "queue-kb": QUEUE_KB}
        profile = validate(
            LinkProfile, {"name": "faults", "medium": "dedicated", "uplink": rate, "downlink": rate}, "the link of the run"
        )
        runs = stack.enter_context(small_disk(folder / "runs", SERVER_DISK))
        library, oddities = build_library(folder), {}
        for number in range(CLIENTS):
            disk = stack.enter_context(small_disk(folder / "state" / f"client-{number}", CLIENT_DISK))
            (disk / "tmp").mkdir()
            clock = OddClock("stepped", step_s=STEP_S, step_file=self._step_file(number))
            oddity = clock.oddity(library)
            oddities[f"client-{number}"] = replace(oddity, environment={**oddity.environment, "TMPDIR": str(disk / "tmp")})
        config = folder / "experiment.toml"
        limits = "".join(f"{phase}-s = {LIMIT_S}\n" for phase in ("queue", "downlink", "train", "uplink"))
        config.write_text(
            f'name = "faults"\nclients = {CLIENTS}\n[server]\nport = {PORT}\ntls = false\n'
            f"round-deadline-s = {ROUND_DEADLINE_S}\n[deadlines]\n{limits}return-s = 60\n"
            "[probes]\ninterval-s = 1.0\nthrottling = false\ntime-sync = false\nwifi = false\nmodem = false\n"
        )
        self._shared.mkdir()
        app = write_app(folder / "app", self._shared, rounds=self._rounds, parameters=PARAMETERS, seconds=TRAIN_S)
        return Plan(folder, runs, config, app, profile, CLIENTS, oddities)


def run_apart(count: int, seed: int) -> RandomOutcome:
    """Run in a process and a mount namespace of its own; nothing is left running or mounted.

    Raises
    ------
    TestbedError
        It could not be begun, or its process failed.
    """
    with scratch_folder("bench") as folder:
        command = [sys.executable, "-m", "fltestbed.bench.faults.random_faults", str(count), str(seed), str(folder)]
        done = subprocess.run(["unshare", "--mount", "--", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise TestbedError(
            f"bench faults: the run with random faults ended with status {done.returncode}; its last words stand above"
        )
    return RandomOutcome(**json.loads(done.stdout))


def main(count: str, seed: str, folder: str) -> None:
    """Run it and print what came out."""
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    print(json.dumps(asdict(_Storm(draw(int(count), int(seed)), Path(folder)).run())))  # noqa: T201  # as it is a program


if __name__ == "__main__":
    main(*sys.argv[1:])
