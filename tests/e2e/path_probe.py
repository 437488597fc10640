"""Runs on a client's host: asks a server (HOST:PORT) over TLS for paths (a JSON list) and prints each answer's statuses."""

import http.client
import json
import ssl
import sys

TIMEOUT_S = 10


def ask(address: str, paths: list[str]) -> dict[str, list[int]]:
    """Statuses of each path for GET and POST; nothing is believed and nothing proved."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, timeout=TIMEOUT_S, context=context)
    statuses: dict[str, list[int]] = {}
    for path in paths:
        for method in ("GET", "POST"):
            connection.request(method, path, body=b"" if method == "POST" else None)
            response = connection.getresponse()
            response.read()
            statuses.setdefault(path, []).append(response.status)
    connection.close()
    return statuses


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1], json.loads(sys.argv[2]))))  # noqa: T201  # the test reads it
