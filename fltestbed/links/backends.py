"""What an emulated wire is made of, best first: netem, wirefilter, tbf.

A wire joins the clients' side of the medium to the server's. Its ends are interfaces of the medium's namespace: what the
client-side end sends into the wire is the uplink, what the server-side end sends the downlink. The rate is always the
kernel's (`tbf`, netem's own, or `htb` where both directions share one budget); backends differ in what they can do about
delay, jitter and loss, and `notes` says what they cannot.
"""

import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fltestbed.errors import HostError, LinkError
from fltestbed.links.namespace import Namespace
from fltestbed.links.profile import Direction, LinkProfile
from fltestbed.links.traffic import FRAME_BYTES, netem_arguments, shape, tbf_arguments, turn_offloads_off


@dataclass(frozen=True)
class End:
    """One end of a wire: the interface that sends into it and the one that receives from it, often the same."""

    sends: str
    receives: str


Ends = tuple[End, End]
"""The client-side and the server-side end of a wire."""


class Backend(ABC):
    """One way to make a wire.

    Attributes
    ----------
    name : str
        What a caller asks for and what the manifest says.
    """

    name: ClassVar[str]

    @abstractmethod
    def missing(self) -> str | None:
        """What this host lacks for this backend; None if it has all."""

    @abstractmethod
    def notes(self, profile: LinkProfile) -> list[str]:
        """What of `profile` this backend does not do, in short sentences for captions."""

    @abstractmethod
    def lay_wire(self, medium: Namespace, number: int, profile: LinkProfile) -> Ends:
        """Make the wire of this `number` in `medium`, up and shaped as in `profile`.

        The rate of a `half_duplex` medium is left out: the budget is put before both ends by the caller.
        """


class Netem(Backend):
    """The kernel's network emulator on a pair of virtual Ethernet devices."""

    name = "netem"

    def missing(self) -> str | None:
        """Try it on a device of a namespace that is thrown away."""
        trial = Namespace("netem-trial")
        try:
            end, _ = _lay_pair(trial, 0)
            trial.call(_shape, end.sends, {"kind": "netem", "delay": 1000})
        except NetlinkError as error:
            return f"the kernel has no sch_netem ({os.strerror(error.code)})"
        finally:
            trial.close()
        return None

    def notes(self, profile: LinkProfile) -> list[str]:
        """See `Backend.notes`."""
        if profile.medium == "half_duplex":
            return []
        return [f"netem: the queue is bounded in frames of {FRAME_BYTES} bytes, not in bytes"]

    def lay_wire(self, medium: Namespace, number: int, profile: LinkProfile) -> Ends:
        """See `Backend.lay_wire`."""
        ends = _lay_pair(medium, number)
        with_rate = profile.medium != "half_duplex"
        for end, (_, direction) in zip(ends, _ways(profile), strict=True):
            medium.call(_shape, end.sends, netem_arguments(direction, with_rate=with_rate))
        return ends


class Wirefilter(Backend):
    """Two TAP devices joined in user space by wirefilter (Debian packages vde2 and vdeplug).

    Its own limit of bandwidth is not used: a token bucket on each TAP is as exact, bounds the queue in bytes and drops less
    (20 Mbit/s for 4 s: 0 retransmissions against 15).
    """

    name = "wirefilter"
    fastest_mbit = 600
    """What it carries in each direction, both at once, on two cores; measured without limits."""
    programs = ("dpipe", "vde_plug", "wirefilter")
    start_timeout_s = 10.0

    def missing(self) -> str | None:
        """See `Backend.missing`."""
        programs = [program for program in self.programs if shutil.which(program) is None]
        if programs:
            return f"{', '.join(programs)} not found (Debian packages vde2, vdeplug)"
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            return "/dev/net/tun is closed to this user (TAP devices need root here)"
        return None

    def notes(self, profile: LinkProfile) -> list[str]:
        """See `Backend.notes`."""
        notes = ["wirefilter keeps time in milliseconds: delays are right to about one"]
        for way, direction in _ways(profile):
            notes += [
                f"wirefilter counts whole milliseconds: {way} {what} {value:g} ms becomes {int(value)} ms"
                for what, value in (("delay", direction.delay_ms), ("jitter", direction.jitter_ms))
                if value != int(value)
            ]
            if direction.rate_mbit > self.fastest_mbit:
                limit = f"wirefilter carries about {self.fastest_mbit} Mbit/s"
                notes.append(f"{limit}: {way} {direction.rate_mbit:g} Mbit/s may not be reached")
        return notes

    def lay_wire(self, medium: Namespace, number: int, profile: LinkProfile) -> Ends:
        """See `Backend.lay_wire`."""
        client_side, server_side = ends = (End(f"w{number}c", f"w{number}cr"), End(f"w{number}s", f"w{number}sr"))
        taps = [tap for end in ends for tap in (end.sends, end.receives)]
        medium.call(_add_taps, taps)
        with tempfile.TemporaryFile() as messages:
            # In a process group of its own, or Ctrl-C would cut the wire before the run has ended in good order.
            options: dict[str, Any] = {"process_group": 0, "stdout": messages, "stderr": messages}
            uplink = self.command(client_side.sends, server_side.receives, profile.uplink)
            downlink = self.command(server_side.sends, client_side.receives, profile.downlink)
            chains = [medium.popen(command, **options) for command in (uplink, downlink)]
            deadline = time.monotonic() + self.start_timeout_s
            while not all(medium.call(_has_carrier, tap) for tap in taps):
                if any(chain.poll() is not None for chain in chains) or time.monotonic() > deadline:
                    messages.seek(0)
                    said = messages.read(300).decode(errors="replace").strip() or "no message"
                    raise LinkError(f"wirefilter: the wire did not come up ({said}); ask for another backend, e.g. tbf")
                time.sleep(0.01)
        if profile.medium != "half_duplex":
            _set_rates(medium, ends, profile)
        return ends

    @staticmethod
    def command(source: str, target: str, direction: Direction) -> list[str]:
        """The chain of programs for one direction, from one TAP to another. When one of them ends, all do.

        One wirefilter between two TAPs would do both directions, but not well: its reassembly buffers for them overlap, so
        they corrupt each other's frames under load; it keeps one order for both, so the larger delay becomes everybody's;
        and a ring of full pipes waits for itself for ever. A chain in which data flows one way alone has none of this.
        """
        # Each dies with its parent: a wire must not outlive us by a program that waits for its TAP.
        guard = ["setpriv", "--pdeathsig", "KILL", "--"]
        jitter = f"+{int(direction.jitter_ms)}U" if direction.jitter_ms >= 1 else ""
        options = ["-d", f"LR{int(direction.delay_ms)}{jitter}", "-l", f"LR{direction.loss_percent:g}"]
        return [
            "dpipe",
            *guard,
            "vde_plug",
            f"tap://{source}",
            "=",
            *guard,
            "wirefilter",
            "-v",
            f"-:tap://{target}",
            *options,
        ]


class Tbf(Backend):
    """Rate and queue alone, on a pair of virtual Ethernet devices. Needs nothing but a kernel."""

    name = "tbf"

    def missing(self) -> str | None:
        """See `Backend.missing`."""
        return None

    def notes(self, profile: LinkProfile) -> list[str]:
        """See `Backend.notes`."""
        notes = []
        for way, direction in _ways(profile):
            lacking = [
                f"{what} {value:g} {unit}"
                for what, value, unit in (
                    ("delay", direction.delay_ms, "ms"),
                    ("jitter", direction.jitter_ms, "ms"),
                    ("loss", direction.loss_percent, "%"),
                )
                if value > 0
            ]
            if lacking:
                notes.append(f"tbf emulates the rate alone: no {way} {', '.join(lacking)}")
        return notes

    def lay_wire(self, medium: Namespace, number: int, profile: LinkProfile) -> Ends:
        """See `Backend.lay_wire`."""
        ends = _lay_pair(medium, number)
        if profile.medium != "half_duplex":
            _set_rates(medium, ends, profile)
        return ends


BACKENDS: tuple[Backend, ...] = (Netem(), Wirefilter(), Tbf())
"""Best first."""


def choose_backend(
    profile: LinkProfile, wanted: str = "auto", backends: Sequence[Backend] = BACKENDS
) -> tuple[Backend, dict[str, str]]:
    """Choose what makes the wires of `profile`.

    Parameters
    ----------
    profile : LinkProfile
        What is to be emulated.
    wanted : str
        A backend's name, or "auto" for the best that this host has. wirefilter is left out where it would do nothing that
        tbf does not (no delay of a millisecond, no loss): its way through user space only costs speed.

    Returns
    -------
    tuple
        The backend, and for each better one that was passed over, why.

    Raises
    ------
    HostError
        The backend asked for is unknown or this host lacks something for it.
    """
    names = [backend.name for backend in backends]
    if wanted != "auto" and wanted not in names:
        raise HostError(f'link backend "{wanted}": unknown; choose auto, {", ".join(names)}')
    passed_over: dict[str, str] = {}
    for backend in backends:
        if wanted not in ("auto", backend.name):
            continue
        reason = backend.missing()
        if reason is None and wanted == "auto" and isinstance(backend, Wirefilter) and not _needs_user_space(profile):
            reason = "nothing in the profile that it could add: no delay of a millisecond or more and no loss"
        if reason is None:
            return backend, passed_over
        passed_over[backend.name] = reason
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    raise HostError(f'link backend "{wanted}": cannot be used on this host: {reasons}')


def _needs_user_space(profile: LinkProfile) -> bool:
    return any(direction.delay_ms >= 1 or direction.loss_percent > 0 for _, direction in _ways(profile))


def _ways(profile: LinkProfile) -> tuple[tuple[str, Direction], tuple[str, Direction]]:
    return ("uplink", profile.uplink), ("downlink", profile.downlink)


def _lay_pair(medium: Namespace, number: int) -> Ends:
    names = (f"w{number}c", f"w{number}s")
    medium.call(_add_pair, names)
    return End(names[0], names[0]), End(names[1], names[1])


def _add_pair(names: tuple[str, str]) -> None:
    with IPRoute() as ip:
        ip.link("add", ifname=names[0], kind="veth", peer={"ifname": names[1]})
        for name in names:
            turn_offloads_off(name)
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")


def _add_taps(names: list[str]) -> None:
    with IPRoute() as ip:
        for name in names:
            ip.link("add", ifname=name, kind="tuntap", mode="tap")
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")


def _has_carrier(interface: str) -> bool:
    with IPRoute() as ip:
        return bool(ip.get_links(ifname=interface)[0].get_attr("IFLA_CARRIER"))


def _shape(interface: str, arguments: dict[str, Any]) -> None:
    with IPRoute() as ip:
        shape(ip, interface, arguments)


def _set_rates(medium: Namespace, ends: Ends, profile: LinkProfile) -> None:
    for end, (_, direction) in zip(ends, _ways(profile), strict=True):
        medium.call(_shape, end.sends, tbf_arguments(direction.rate_mbit, direction.queue_kb))
