"""httpx's transport for Flower's own requests, with bounds: httpx inflates whatever comes, and takes all that comes."""

import ssl

import httpx

MOST_ANSWER_BYTES = 4 << 30


class FleetTransport(httpx.HTTPTransport):
    """Answers that are not compressed, and that say how long they are.

    Parameters
    ----------
    verify : ssl.SSLContext or bool
    keep_alive_s : float
        How long an idle connection is kept.
    """

    def __init__(self, verify: ssl.SSLContext | bool, keep_alive_s: float) -> None:
        super().__init__(verify=verify, limits=httpx.Limits(keepalive_expiry=keep_alive_s))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises
        ------
        httpx.RemoteProtocolError
            The answer is compressed, which nobody asked for, or announces too much or nothing.
        """
        request.headers["accept-encoding"] = "identity"
        response = super().handle_request(request)
        length = response.headers.get("content-length", "")
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity" or not length.isdigit() or int(length[:20]) > MOST_ANSWER_BYTES:
            response.close()
            raise httpx.RemoteProtocolError(
                f"an answer of {length[:20] or 'unknown'} bytes, encoded as {encoding[:20]!r}; at most {MOST_ANSWER_BYTES} "
                "as they are were expected",
                request=request,
            )
        return response
