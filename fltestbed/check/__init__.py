"""Is this host ready? Every mistake that would cost an hour of measuring, looked for before it.

::

    finding.py      what a check says: ok, warning or error, and what to do
    software.py     Python, packages, whether PyTorch runs on this processor
    machine.py      clocks, disk, processor, throttling
    network.py      an interface, the route to the server, what is in the way of packets
    arrival.py      the server as a client meets it: port, TLS, key, versions
    server.py       the server's own host before it starts: port, certificates, run folder
    radio.py        WiFi and modem
    baseline.py     ping and iperf3, what a link can carry before a run
    hosts.py        all checks of a server's host, and of a client's

A check looks at what is there and changes nothing, but that it makes the client's key if there is none. What a host has not
(no modem, no Raspberry Pi firmware) is no finding; the report says that it was not looked at, and why.
"""
