"""What runs inside the trainer: the app, its one context, and a message at a time."""

import contextlib
import logging
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.flower import apps
from fltestbed.flower.bundle import Bundle, Piece, decode
from fltestbed.flower.compression import Compression
from fltestbed.measure.events import Span, listening
from fltestbed.shared_buffer import SharedBuffer

log = logging.getLogger("fltestbed")


class Worker:
    """One ClientApp, loaded and warm.

    Parameters
    ----------
    app : ClientApp
    context : Context
        The one that the app gets with every message.
    compression : Compression
        Of the replies, and what a message may take when its tensors are whole again.
    """

    def __init__(self, app: ClientApp, context: Context, compression: Compression) -> None:
        self._app = app
        self._context = context
        self._compression = compression

    @classmethod
    def load(cls, head: dict[str, Any], fab: bytes) -> "Worker":
        """Load the app that a trainer's order names.

        Parameters
        ----------
        head : dict
            The order: run, app, node and its configuration.
        fab : bytes
            The app.
        """
        compression = Compression.of(**head["compression"])
        app = apps.App(int(head["run_id"]), head["fab_id"], head["fab_version"], head["fab_hash"], fab)
        node_id = int(head["node_id"])
        apps.set_identity(app.run_id, node_id)
        context = apps.client_context(app, node_id, head["node_config"])
        if apps.inspect(fab).is_installed_app:
            from fltestbed.learning import client_app  # noqa: PLC0415  # torch, for the toolkit's own app alone

            client_app.prepare(context)
            return cls(client_app.app, context, compression)
        apps.install(app)
        return cls(apps.load_client_app(app), context, compression)

    def become(self, run_id: int, node_id: int) -> None:
        """Answer as another node of another run, with the app's context as it is."""
        apps.set_identity(run_id, node_id)
        self._context.run_id, self._context.node_id = run_id, node_id

    def answer(
        self,
        message_buffer: SharedBuffer,
        length: int,
        wall_offset_s: float,
        is_measured: bool = True,
        is_checked: bool = False,
    ) -> tuple[dict[str, Any], list[Piece]]:
        """Answer one message, the first `length` bytes of a buffer, whose memory is given back before the app is called.

        Parameters
        ----------
        is_checked : bool
            Whether its objects have been checked on this host already.

        Returns
        -------
        facts : dict
            Identifier of the message; of one that is measured, also when the app was called and returned, and the spans
            that it reported.
        pieces : list of bytes
            The reply as a bundle without its first piece, which the network process makes when it sends.

        Raises
        ------
        BundleError
            The message cannot be read.
        """
        message = decode(message_buffer.read(length), verify=not is_checked).inflate(self._compression.most_bytes)[0]
        message_buffer.free()
        spans: list[Span] = []
        with listening(spans.append) if is_measured else contextlib.nullcontext():
            called_ns = SYSTEM_CLOCK.raw_ns()
            try:
                self._compression.restore(message)
                called_ns = SYSTEM_CLOCK.raw_ns()
                reply = self._app(message, self._context)
            except Exception as error:
                log.exception("the ClientApp failed")
                reason = f"{type(error).__name__}: {error}"
                reply = apps.error_reply(message, reason, crashed=False)
            returned_ns = SYSTEM_CLOCK.raw_ns()
        if not spans:
            phase = "evaluate" if message.metadata.message_type.startswith("evaluate") else "train"
            spans.append(Span(phase, called_ns, returned_ns, "the whole call of the ClientApp"))
        apps.set_creation_time(reply, message, SYSTEM_CLOCK.wall_ns() / 1e9 + wall_offset_s)
        bundle = Bundle.of(self._compression.compress([reply]))
        if not is_measured:
            return {"message_id": message.metadata.message_id}, bundle.encode()[1:]
        facts = {
            "message_id": message.metadata.message_id,
            "called_raw_ns": called_ns,
            "returned_raw_ns": returned_ns,
            "error": str(reply.error.reason)[:300] if reply.has_error() else None,
            "spans": [vars(span) for span in spans],
        }
        return facts, bundle.encode()[1:]
