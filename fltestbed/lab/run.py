"""One run on real hosts: the server here, a client on each Pi over the interface of one link.

The server is `fltestbed server`, a client the service ``fltestbed-client@INTERFACE`` that deploy/ansible has installed. What
a host says before the run decides whether there is one; what becomes of it later costs the run no more than its own part.
"""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fltestbed.children import Process, ToldByChild, end, server_arguments, start
from fltestbed.client.journal import SUFFIX
from fltestbed.config import Experiment
from fltestbed.errors import ConfigError, TestbedError
from fltestbed.lab.inventory import Inventory, Pi
from fltestbed.lab.remote import Remote
from fltestbed.measure.manifest import FILE_NAME, amend, read_manifest, refuse_existing
from fltestbed.scratch import scratch_folder

END_TIMEOUT_S = 30.0
LEAVE_S = 5.0
"""A client that was told of the run's end needs a moment to go by itself."""
ANSWER_S = 30.0
"""For so long a check tries again: the server begins to listen a moment before it answers."""
MODEM_S = 100.0
"""For so long a modem that has lost its address may look for its network."""
POLL_S = 0.1
CURSOR = "-- cursor: "
NO_OPTION = "No such option"
OLDER = " (its toolkit is older than this host's: run deploy/ansible/site.yml again)"

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class LabRun:
    """What one run over real hosts is asked to do.

    Attributes
    ----------
    config : Path
        The experiment's file, which the server reads.
    experiment : Experiment
    inventory : Inventory
    link : str
        Name of the link, as in the inventory.
    remote : Remote
        How commands get to the hosts.
    campaign : Path or None
        JSON file that says of which campaign this run is a part, for the manifest.
    """

    config: Path
    experiment: Experiment
    inventory: Inventory
    link: str
    remote: Remote
    campaign: Path | None = None

    def run(self, name: str, runs: Path, *, app: Path | None = None) -> Path:
        """Run the experiment once; returns the run folder.

        Raises
        ------
        ConfigError
            The hosts cannot make this run; nothing was started.
        TestbedError
            A host was not ready, or the server failed. The run folder says why, where there is one.
        """
        folder = runs / name
        refuse_existing(folder)
        pis = self.inventory.clients(self.link, self.experiment.clients)
        check_experiment(self.experiment, self.inventory.path)
        arguments = server_arguments(self.config, name, runs, app, self.campaign)
        # The server waits from its start on, and the clients start after their hosts were checked.
        join_timeout_s = self.experiment.server.join_timeout_s + self.remote.timeout_s
        with _server([*arguments, "--join-timeout", f"{join_timeout_s:g}"]) as server:
            _wait_for_folder(server, folder)
            cursors: dict[str, str] = {}
            problem: TestbedError | None = None
            try:
                cursors = self._get_ready(pis, folder)
                self._start(pis)
                server.wait()
            except TestbedError as error:
                problem = error
            except KeyboardInterrupt:
                server.terminate()  # it ends while the clients are ended
                hosts = ", ".join(pi.name for pi in pis)
                log.warning("%s: stopping the clients on %s; a second Ctrl-C leaves them", name, hosts)
                self.remote.shell({pi.name: f"systemctl stop {self._unit(pi)}" for pi in pis})
                raise
            end([server], END_TIMEOUT_S)
            missing = self._stop_and_collect(pis, cursors, folder) if cursors else {}
            amend(folder, lab={"hosts": [pi.name for pi in pis], "missing": missing})
        if problem is not None:
            amend(folder, status="failed", reason=str(problem))
            raise problem
        if server.returncode != 0:
            raise ToldByChild(server.returncode)
        return folder

    def _get_ready(self, pis: Sequence[Pi], folder: Path) -> dict[str, str]:
        """Check every host, end clients that an earlier run has left; returns where the hosts' journals are now."""
        cursors, problems = {}, []
        for name, answer in self.remote.shell({pi.name: _check_script(pi.links[self.link].interface) for pi in pis}).items():
            report, _, cursor = answer.output.partition(CURSOR)
            cursors[name] = cursor.strip()
            _write(folder / "logs" / f"{name}-check.json", report)
            if answer.problem:
                problems.append(
                    f"{name} is not ready: {_errors(report) or answer.problem}{OLDER * (NO_OPTION in answer.problem)}"
                )
        if problems:
            raise TestbedError("; ".join(problems))
        return cursors

    def _start(self, pis: Sequence[Pi]) -> None:
        answers = self.remote.shell({pi.name: f"systemctl start {self._unit(pi)}" for pi in pis})
        problems = [
            f"{name}: the client has not started: {answer.problem}" for name, answer in answers.items() if answer.problem
        ]
        if problems:
            raise TestbedError("; ".join(problems))

    def _stop_and_collect(self, pis: Sequence[Pi], cursors: Mapping[str, str], folder: Path) -> dict[str, str]:
        """End the clients and bring what they have said and kept; what could not be had, by host."""
        stop = {
            pi.name: (
                f"for i in $(seq {LEAVE_S * 5:.0f}); do systemctl -q is-active {self._unit(pi)} || break; sleep 0.2; done\n"
                f"systemctl stop {self._unit(pi)}\n"
                f"journalctl --no-pager --output=short-iso-precise --unit={self._unit(pi)} "
                f"--after-cursor='{cursors[pi.name]}'"
            )
            for pi in pis
        }
        missing = {}
        for name, answer in self.remote.shell(stop).items():
            if answer.problem:
                missing[name] = f"its log: {answer.problem}"
            else:
                _write(folder / "logs" / f"{name}.log", answer.output)
        reached = [pi for pi in pis if pi.name not in missing]
        return missing | (self._collect(reached, folder) if reached else {})

    def _collect(self, pis: Sequence[Pi], folder: Path) -> dict[str, str]:
        """Bring the rows that only the clients have; `fltestbed collect` for all of them at once."""
        from fltestbed.server.collection import collect  # noqa: PLC0415  # Flower takes a second to import

        run_id = read_manifest(folder).get("run_id")
        kept = {pi.name: f"{STATE}/{pi.name}/runs/{folder.name}.{run_id}{SUFFIX}" for pi in pis}
        with scratch_folder("collect") as scratch:
            answers = self.remote.fetch(kept, scratch)
            for found in collect(folder, [scratch]):
                log.info("%s", found)
        return {name: f"its own copy of the rows: {answer.problem}" for name, answer in answers.items() if answer.problem}

    def _unit(self, pi: Pi) -> str:
        return f"fltestbed-client@{pi.links[self.link].interface}.service"


STATE = "/var/lib/fltestbed"
"""State of the clients' service, as deploy/systemd has it."""


def missing_parts(folder: Path) -> dict[str, str]:
    """What could not be had of each host after a run; empty for a run that was not made on real hosts."""
    try:
        lab = read_manifest(folder).get("lab") or {}
    except (OSError, ValueError):
        return {}
    return {str(host): str(what) for host, what in lab.get("missing", {}).items()}


def check_experiment(experiment: Experiment, inventory: Path) -> None:
    """Raise `ConfigError` for what an experiment asks of an emulated network, or of clients that are set up otherwise."""
    if experiment.server.tls is False:
        raise ConfigError(
            f"{inventory}: its clients speak TLS and the experiment says server.tls = false; leave that out, and name the "
            'folder of the certificates: server.certificates = "/etc/fltestbed/certs"'
        )
    if experiment.competing_flow is not None:
        raise ConfigError(f"{inventory}: competing-flow is for emulated links; on real ones the flow is yours to start")


def _check_script(interface: str) -> str:
    """What a Pi is asked before a run: is all there, is nothing left, is it ready?"""
    settings = f"/etc/fltestbed/client-{interface}.env"
    return "\n".join(
        [
            "set -e",
            f"test -e {settings} || {{ echo 'no {settings}: set the host up with deploy/ansible' >&2; exit 1; }}",
            "systemctl stop 'fltestbed-client@*'; systemctl reset-failed 'fltestbed-client@*' || true",
            f". {settings}",
            f"if test -e /etc/fltestbed/modem-{interface}.env && ! ip -4 -o address show dev {interface} | grep -q .; then",
            f"    timeout {MODEM_S:g} systemctl restart fltestbed-modem@{interface} || true",
            "fi",
            "pin= right=",
            'case " $MORE " in',
            '*" --pin-route "*) pin=--pin-route right="--inh-caps=+net_admin --ambient-caps=+net_admin" ;;',
            "esac",
            f"setpriv --reuid=fltestbed --regid=fltestbed --init-groups $right env HOME={STATE} "
            f"/opt/fltestbed/bin/fltestbed check --json --server $SERVER --interface {interface} --timeout {ANSWER_S:g} "
            f"--name $NAME --state {STATE}/$NAME --ca /etc/fltestbed/ca.crt --key /etc/fltestbed/node.key $pin",
            "journalctl --no-pager --lines=0 --show-cursor",
        ]
    )


def _errors(report: str) -> str:
    """The errors that `fltestbed check --json` has found; empty if it did not get so far."""
    try:
        findings = json.loads(report)["findings"]
        errors = [finding for finding in findings if finding["status"] == "error"]
        return "; ".join(f"{error['check']}: {error['said']} ({error['advice']})" for error in errors)
    except (ValueError, KeyError, TypeError):
        return ""


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text.strip() + "\n")


@contextlib.contextmanager
def _server(arguments: Sequence[str]) -> Iterator[Process]:
    """The server's process, which ends with the block."""
    process = start(arguments)
    try:
        yield process
    finally:
        end([process], END_TIMEOUT_S)  # it writes how it ended


def _wait_for_folder(server: Process, folder: Path) -> None:
    """Wait until the server listens, though it may not answer yet: it makes its run folder then."""
    while not (folder / FILE_NAME).exists():
        if server.poll() is not None:
            raise ToldByChild(server.returncode)
        time.sleep(POLL_S)
