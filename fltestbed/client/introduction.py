"""The first words between a client and its server: is it there, is it who was meant, what does it tell a client."""

import http.client
import json
import time
from pathlib import Path
from typing import Any

from fltestbed.client.carriers import RETRY_INTERVAL_S, SILENCE_S, PatientConnection
from fltestbed.client.hello import read_hello
from fltestbed.client.path import ServerPath
from fltestbed.client.transport import ServerConnection, SessionLost, refuse
from fltestbed.clock import Clock
from fltestbed.errors import HostError, ServerNotTrusted, ServerRefused, ServerUnreachable
from fltestbed.flower.node import FleetNode
from fltestbed.flower.node_key import NodeKey
from fltestbed.measure.host import toolkit_versions
from fltestbed.security.trust import ServerTrust, why_not_trusted

CONNECT_TIMEOUT_S = 5.0
MOST_REGISTRATIONS = 2
"""A server that is started again between registration and hello wants another."""


class Introduction:
    """A client's key, what it believes the server by, and its connections, before it takes part.

    Parameters
    ----------
    server : str
        HOST:PORT.
    name : str
        Of the client.
    state : Path
        Folder that keeps the client's key between runs.
    path : ServerPath
        Proven; every socket is bound to its interface and shown to it.
    clock : Clock
    ca : Path or None
        Certificate of the CA that signed the server's; None speaks plain HTTP.
    key : Path or None
        The client's private key; None keeps one in `state`.

    Raises
    ------
    HostError
        The key cannot be read, or is in use.
    ConfigError
        The CA's certificate cannot be used.
    """

    def __init__(
        self,
        server: str,
        name: str,
        state: Path,
        path: ServerPath,
        clock: Clock,
        ca: Path | None = None,
        key: Path | None = None,
    ) -> None:
        if key is not None and not key.is_file():
            raise HostError(f"--key {key}: there is no such file; fltestbed certs --node {name} makes one")
        self._server = server
        self._name = name
        self._ca = ca
        self._interface = path.interface
        self.key = NodeKey(key or state / "node.key", clock, name)
        self.trust = ServerTrust(ca, state, clock) if ca is not None else None
        tls = self.trust.context if self.trust is not None else None
        self.connection = ServerConnection(server, path.interface, self.key, clock, tls, path.sockets.take)
        self.node = FleetNode(server, self.key, tls, path.interface, path.sockets.take)

    def reach(self, timeout_s: float) -> None:
        """Learn the server's time, and so that it is there; try again for `timeout_s` seconds.

        Raises
        ------
        ServerUnreachable, ServerNotTrusted
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.key.learn_time(self.connection.date(CONNECT_TIMEOUT_S))
                if self.trust is not None:
                    self.trust.learn_time(self.key.wall_offset_s)
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                self._check_identity(error)
                if time.monotonic() >= deadline:
                    raise ServerUnreachable(
                        f"{self._server}: no server answers there within {timeout_s:g} s over {self._interface} "
                        f"({error}); is it started, and is the address right?"
                    ) from error
                time.sleep(RETRY_INTERVAL_S)
            else:
                return

    def hello(self, timeout_s: float = 0.0) -> dict[str, Any]:
        """Say hello, and return what a client has to know; a server that does not know the key yet may take it.

        What gets no answer, as of a server that is busy with many clients, is tried again for `timeout_s` seconds.

        Raises
        ------
        ServerRefused
            The client runs another version, or its key or its name is not welcome. Or the server says what cannot be.
        SessionLost
            The server has failed.
        ServerUnreachable
        """
        facts = [json.dumps({"versions": toolkit_versions(), "name": self._name}).encode()]
        patient = PatientConnection(self._server, self.connection, timeout_s)
        reply = patient.post("hello", facts, SILENCE_S)
        for _ in range(MOST_REGISTRATIONS):
            if reply.status == http.client.UNAUTHORIZED:
                self.node.register(timeout_s)
                reply = patient.post("hello", facts, SILENCE_S)
        try:
            refuse(reply)
        except SessionLost as loss:
            if loss.is_over:
                raise
            raise ServerRefused(str(loss)) from loss  # it knows the key and does not want it: no patience mends that
        return read_hello(reply.data)

    def close(self) -> None:
        """Go away without having taken part: connections are closed and the key is free."""
        self.connection.close()
        self.node.close()
        self.key.release()

    def _check_identity(self, error: Exception) -> None:
        """Raise what no patience mends: the other side speaks another protocol, or is not who was meant."""
        if self._ca is not None:
            reason = why_not_trusted(error, self._ca)
        elif isinstance(error, ConnectionResetError | http.client.HTTPException) and self.connection.answers_with_tls(
            CONNECT_TIMEOUT_S
        ):
            reason = "the server speaks TLS; give --ca with a copy of its ca.crt"
        else:
            reason = None
        if reason is not None:
            raise ServerNotTrusted(f"{self._server}: {reason}") from error
