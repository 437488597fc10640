"""What a client gets from a server at its introduction, and finding the server again, which may have been restarted."""

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

from fltestbed.client.carriers import RETRY_INTERVAL_S, PatientConnection
from fltestbed.client.introduction import Introduction
from fltestbed.client.transport import SessionLost
from fltestbed.errors import ServerRefused, ServerUnreachable
from fltestbed.flower.apps import App

log = logging.getLogger("fltestbed")


def meet(
    server: str,
    introduction: Introduction,
    timeout_s: float,
    patience_s: float,
    check: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[dict[str, Any], App]:
    """Introduce a client to a server that is there, bring its node online, and get the app of the run.

    A server that fails meanwhile, or is started again and knows nothing of the first words, is waited for, as by a client
    that has joined.

    Parameters
    ----------
    server : str
        host:port.
    introduction : Introduction
        The client's; it has reached the server.
    timeout_s : float
        How long one request is made again that gets no answer.
    patience_s : float
        How long to wait for the server in all.
    check : callable (dict) -> None
        Shown what the server says before anything else is asked of it; raises what ends the client.

    Returns
    -------
    dict, App
        What the server says, and the app.

    Raises
    ------
    ServerUnreachable, ServerRefused
    """
    connection, deadline = introduction.connection, time.monotonic() + patience_s
    tell = log.warning
    while True:
        try:
            hello = introduction.hello(timeout_s)
            check(hello)
            connection.congestion_control = hello["congestion_control"]
            connection.close()  # the next one has the congestion control of the run
            introduction.node.come_online(int(hello["node_id"]), timeout_s)
            return hello, get_app(PatientConnection(server, connection, timeout_s), hello)
        except (SessionLost, ServerUnreachable) as error:
            if time.monotonic() >= deadline:
                raise
            tell("%s: %s; waiting for it to go on, %g s at most", server, str(error).removeprefix(f"{server}: "), patience_s)
            tell = log.debug
        connection.close()
        time.sleep(RETRY_INTERVAL_S)
        introduction.reach(max(0.0, deadline - time.monotonic()))


def rejoin(
    server: str, introduction: Introduction, patience_s: float, former: dict[str, Any], loss: SessionLost
) -> dict[str, Any]:
    """Wait for the server and introduce the client again, with the key that it has; its node is registered and online after.

    Parameters
    ----------
    server : str
        host:port.
    introduction : Introduction
        The client's; its connection is opened anew.
    patience_s : float
        For how long to wait.
    former : dict
        What the server said at the last introduction.
    loss : SessionLost
        Why there has to be another one.

    Returns
    -------
    dict
        What the server says now.

    Raises
    ------
    ServerUnreachable
        It did not come back in time.
    ServerRefused
        Another run is there now, or this client may not take part.
    """
    deadline = time.monotonic() + patience_s
    while True:
        introduction.connection.close()
        introduction.reach(max(0.0, deadline - time.monotonic()))
        try:
            hello = introduction.hello()
            if hello["run"] != former["run"]:
                raise ServerRefused(f"{server}: serves run {hello['run']} now; this client is part of {former['run']}")
            if not (loss.is_over and hello["run_id"] == former["run_id"]):
                introduction.node.come_online(int(hello["node_id"]))
                return hello
        except (ServerUnreachable, SessionLost) as error:
            log.debug("%s: not yet: %s", server, error)
        if time.monotonic() >= deadline:
            raise ServerUnreachable(f"{server}: the run did not go on within {patience_s:g} s")
        time.sleep(RETRY_INTERVAL_S)


def get_app(connection: PatientConnection, hello: dict[str, Any]) -> App:
    """The app of the run, as the server sends it."""
    fab = bytes(connection.post_json("app", {}).body)
    if hashlib.sha256(fab).hexdigest() != hello["fab_hash"]:
        raise ServerRefused(
            "the app that the server sent does not have the hash that the server named; start the client again"
        )
    return App(int(hello["run_id"]), hello["fab_id"], hello["fab_version"], hello["fab_hash"], fab)
