"""The outermost middleware of the SuperLink: who may ask for what.

Flower serves three APIs on one port, and its Control API starts code for whoever reaches it. From anywhere but loopback only
the Fleet API, the toolkit's client routes and /health answer; everything else is 403. The toolkit's own routes are answered
here, before Flower's middlewares buffer their bodies; Fleet requests pass by the observer of stock SuperNodes.
"""

import ipaddress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fltestbed.server.fleet_guard import FleetApp
from fltestbed.server.routes import PREFIX

OPEN_PATHS = ("/v1/fleet/", f"{PREFIX}/client/")
FLEET_PATH = "/v1/fleet/"


class Gate:
    """ASGI middleware; `app` is Flower's application.

    Parameters
    ----------
    app : ASGI application
    routes : ASGI application
        The toolkit's routes.
    observer : ASGI middleware
        Sees Fleet requests on their way to `app`, and those alone that the guard before it lets pass.
    """

    def __init__(self, app: ASGIApp, routes: ASGIApp, observer: FleetApp) -> None:
        self._app = app
        self._routes = routes
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer 403."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if not is_loopback(scope.get("client")) and not (path == "/health" or path.startswith(OPEN_PATHS)):
            refusal = JSONResponse({"error": "only the server itself may use this"}, status_code=403)
            await refusal(scope, receive, send)
        elif path.startswith(PREFIX):
            await self._routes(scope, receive, send)
        elif path.startswith(FLEET_PATH):
            await self._observer(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def is_loopback(client: tuple[str, int] | None) -> bool:
    """Whether a peer is this host; an address that cannot be read is not."""
    if client is None:
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
