"""Backends: which is chosen, what it asks of the kernel, what it says it cannot do."""

from collections.abc import Callable
from typing import Any

import pytest
from pyroute2.netlink.rtnl.tcmsg import tcmsg
from pyroute2.netlink.rtnl.tcmsg.sched_netem import get_parameters

from fltestbed.errors import HostError
from fltestbed.links import LinkProfile, load_link
from fltestbed.links.backends import Netem, Tbf, Wirefilter, choose_backend
from fltestbed.links.traffic import netem_arguments, tbf_arguments


def profile(medium: str = "shared_tdd", **uplink: float) -> LinkProfile:
    direction = {"rate-mbit": 20.0, "queue-kb": 300.0}
    keys = {key.replace("_", "-"): value for key, value in uplink.items()}
    data = {"name": "lab", "medium": medium, "uplink": direction | keys, "downlink": direction}
    return LinkProfile.model_validate(data)


def host_with(**missing: str | None) -> tuple[Any, ...]:
    """Return the three backends of a host that lacks what is given for each."""

    def say(reason: str | None) -> Callable[[], str | None]:
        return lambda: reason

    backends = (Netem(), Wirefilter(), Tbf())
    for backend in backends:
        backend.missing = say(missing.get(backend.name))  # type: ignore[method-assign] # a host of our own making
    return backends


class TestChoice:
    """Best first, and every one that was passed over with its reason."""

    def test_netem_is_best(self) -> None:
        """Where the kernel has netem nothing else is looked at."""
        backend, passed_over = choose_backend(profile(delay_ms=10), backends=host_with())
        assert (backend.name, passed_over) == ("netem", {})

    def test_wirefilter_where_there_is_a_delay_to_emulate(self) -> None:
        """Without netem, wirefilter makes the delay."""
        backend, passed_over = choose_backend(profile(delay_ms=10), backends=host_with(netem="no module"))
        assert (backend.name, passed_over) == ("wirefilter", {"netem": "no module"})

    def test_tbf_where_wirefilter_could_add_nothing(self) -> None:
        """A delay under a millisecond is below wirefilter's resolution: the kernel alone is as true and faster."""
        backend, passed_over = choose_backend(profile(delay_ms=0.2), backends=host_with(netem="no module"))
        assert backend.name == "tbf"
        assert "nothing in the profile" in passed_over["wirefilter"]

    def test_one_that_is_asked_for_is_used_or_refused_with_the_reason(self) -> None:
        """A backend by name is used even if another were better; what the host lacks for it is in the error."""
        assert choose_backend(profile(delay_ms=10), "tbf", host_with())[0].name == "tbf"
        with pytest.raises(HostError, match=r'link backend "wirefilter": cannot be used.*TUN is closed'):
            choose_backend(profile(delay_ms=10), "wirefilter", host_with(wirefilter="TUN is closed"))

    def test_unknown_name_lists_the_known_ones(self) -> None:
        """A name that no backend has is answered with the names."""
        with pytest.raises(HostError, match="auto, netem, wirefilter, tbf"):
            choose_backend(profile(), "htb", host_with())


class TestRequests:
    """What the kernel is asked, in its own units: this covers kernels that lack the qdisc."""

    def test_netem_request(self) -> None:
        """Delay, jitter, loss, rate and limit of a profile stand in the message as netem defines them."""
        arguments = netem_arguments(profile(delay_ms=14, jitter_ms=4, loss_percent=0.5).uplink, with_rate=True)
        assert arguments == {
            "kind": "netem",
            "delay": 14_000,  # microseconds
            "jitter": 4_000,
            "loss": 0.5,
            "rate": 2_500_000,  # bytes a second
            "limit": 228,  # frames of 1,514 bytes in 300 kB and in 18 ms at 20 Mbit/s, and one
        }
        message = tcmsg()
        message["attrs"] = [("TCA_KIND", "netem"), ("TCA_OPTIONS", get_parameters(arguments))]
        message.encode()
        decoded = tcmsg(bytes(message.data))
        decoded.decode()
        options = decoded.get_attr("TCA_OPTIONS")
        ticks_a_microsecond = options["delay"] / 14_000
        assert options["jitter"] == pytest.approx(4_000 * ticks_a_microsecond, rel=1e-6)
        assert options["limit"] == 228
        assert options["loss"] == int(0.005 * (2**32 - 1))
        assert options.get_attr("TCA_NETEM_RATE")["rate"] == 2_500_000

    def test_netem_leaves_a_shared_budget_alone(self) -> None:
        """On a half-duplex medium the rate is set before both ends, so netem is asked for none."""
        assert "rate" not in netem_arguments(profile("half_duplex", delay_ms=2).uplink, with_rate=False)

    @pytest.mark.parametrize(("rate_mbit", "burst"), [(20.0, 3028), (300.0, 37_500)])
    def test_tbf_request(self, rate_mbit: float, burst: int) -> None:
        """The bucket is one millisecond of the rate but at least two frames; the queue is in bytes."""
        expected = {"kind": "tbf", "rate": int(rate_mbit * 125_000), "burst": burst, "limit": 300_000}
        assert tbf_arguments(rate_mbit, 300) == expected

    def test_wirefilter_command(self) -> None:
        """Each direction is a chain of its own from one TAP to another, and every program dies with its parent."""
        command = Wirefilter.command("w0c", "w0sr", profile(delay_ms=14.5, jitter_ms=4, loss_percent=0.5).uplink)
        text = " ".join(command).replace("setpriv --pdeathsig KILL -- ", "!")
        assert text == "dpipe !vde_plug tap://w0c = !wirefilter -v -:tap://w0sr -d LR14+4U -l LR0.5"


class TestNotes:
    """What a backend cannot do, in sentences."""

    def test_tbf_says_what_it_leaves_out(self) -> None:
        """Delay, jitter and loss of the profile are named with their values, and nothing that the profile has not."""
        assert Tbf().notes(profile(delay_ms=14, jitter_ms=4, loss_percent=0.5)) == [
            "tbf emulates the rate alone: no uplink delay 14 ms, jitter 4 ms, loss 0.5 %"
        ]
        assert Tbf().notes(profile()) == []

    def test_wirefilter_says_what_it_rounds_and_cannot_reach(self) -> None:
        """Fractions of a millisecond and rates past its own speed are noted."""
        notes = Wirefilter().notes(profile(delay_ms=2.5, rate_mbit=2000))
        assert "wirefilter counts whole milliseconds: uplink delay 2.5 ms becomes 2 ms" in notes
        assert any("2000 Mbit/s may not be reached" in note for note in notes)

    def test_shipped_profiles_have_notes_for_tbf(self) -> None:
        """All shipped profiles have a delay, so a run over tbf cannot go without a note."""
        assert all(Tbf().notes(load_link(name)) for name in ("5g", "wifi", "ethernet"))
