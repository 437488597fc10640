"""A WiFi interface through nl80211.

The kernel's messages are built here byte by byte, after linux/nl80211.h; pyroute2 takes them apart as it does the kernel's.
"""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nl80211 import nl80211cmd

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes import wifi
from fltestbed.measure.probes.wifi import WifiProbe, channel_of

NEW_INTERFACE, NEW_STATION, GET_POWER_SAVE = 7, 19, 62
IFINDEX, IFNAME, MAC, STA_INFO, WIPHY_FREQ, PS_STATE, CHANNEL_WIDTH, CENTER_FREQ1 = 3, 4, 6, 21, 38, 93, 159, 160
SIGNAL, TX_BITRATE, RX_BITRATE = 7, 8, 14
BITRATE, BITRATE32, VHT_MCS = 1, 5, 6


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def message(command: int, *attributes: bytes) -> Any:
    body = struct.pack("=BBH", command, 1, 0) + b"".join(attributes)
    decoded = nl80211cmd(struct.pack("=IHHII", 16 + len(body), 27, 0, 1, 2) + body)
    decoded.decode()
    return decoded


INTERFACE = message(
    NEW_INTERFACE, attribute(IFINDEX, u32(3)), attribute(IFNAME, b"wlan0\0"), attribute(WIPHY_FREQ, u32(5500)),
    attribute(CHANNEL_WIDTH, u32(3)), attribute(CENTER_FREQ1, u32(5530)),
)  # fmt: skip
NOT_ASSOCIATED = message(NEW_INTERFACE, attribute(IFINDEX, u32(3)), attribute(IFNAME, b"wlan0\0"))
FAST = attribute(BITRATE32, u32(4333)) + attribute(BITRATE, struct.pack("=H", 4333)) + attribute(VHT_MCS, b"\x09")
SLOW = attribute(BITRATE, struct.pack("=H", 60))
STATION = message(
    NEW_STATION, attribute(IFINDEX, u32(3)), attribute(MAC, bytes.fromhex("dca632010203")),
    attribute(STA_INFO, attribute(SIGNAL, b"\xcc") + attribute(TX_BITRATE, FAST) + attribute(RX_BITRATE, SLOW)),
)  # fmt: skip


class Kernel:
    """Answers nl80211 requests as pyroute2's socket does."""

    prid = 27

    def __init__(
        self, interface: Any = INTERFACE, stations: tuple[Any, ...] = (STATION,), power_save: int | None = 1
    ) -> None:
        self.interface = interface
        self.stations = stations
        self.power_save = power_save
        self.is_gone = False

    def _check(self) -> None:
        if self.is_gone:
            raise NetlinkError(19, "No such device")

    def get_interfaces_dump(self) -> Iterator[Any]:
        """All wireless interfaces."""
        self._check()
        yield self.interface

    def get_interface_by_ifindex(self, index: int) -> list[Any]:
        """One of them."""
        self._check()
        assert index == 3
        return [self.interface]

    def get_stations(self, index: int) -> tuple[Any, ...]:
        """Its access point."""
        assert index == 3
        return self.stations

    def nlm_request(self, request: Any, msg_type: int, msg_flags: int) -> Iterator[Any]:
        """Its power save."""
        assert (request["cmd"], msg_type) == (GET_POWER_SAVE, 27)
        assert request["attrs"] == [["NL80211_ATTR_IFINDEX", 3]]
        if self.power_save is None:
            raise NetlinkError(95, "Operation not supported")
        yield message(GET_POWER_SAVE, attribute(PS_STATE, u32(self.power_save)))

    def close(self) -> None:
        """No more requests."""
        self.is_gone = True


def opened(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, interface: str = "wlan0") -> WifiProbe:
    monkeypatch.setattr(wifi, "IW", lambda: kernel)
    probe = WifiProbe(interface, 1.0)
    assert probe.open() == {"reads": "nl80211"}
    return probe


def test_an_associated_interface_is_a_whole_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channel 100 at 5500 MHz, 80 MHz wide, 433.3 Mbit/s up and 6 down, at -52 dBm, with power save on."""
    (row,) = opened(Kernel(), monkeypatch).read()
    assert row == {
        "interface": "wlan0", "technology": "wifi", "power_save": True, "frequency_mhz": 5500.0, "channel": 100,
        "channel_width_mhz": 80, "cell": "dc:a6:32:01:02:03", "rssi_dbm": -52.0,
        "tx_bit_rate_bps": 433.3e6, "rx_bit_rate_bps": 6e6,
    }  # fmt: skip


def test_while_not_associated_the_signal_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is there all the same: that there was no connection is a fact."""
    kernel = Kernel(interface=NOT_ASSOCIATED, stations=(), power_save=0)
    assert opened(kernel, monkeypatch).read() == [{"interface": "wlan0", "technology": "wifi", "power_save": False}]


def test_a_driver_without_power_save_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """None, not off."""
    (row,) = opened(Kernel(power_save=None), monkeypatch).read()
    assert row["power_save"] is None


def test_an_interface_that_vanishes_is_a_failed_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what the kernel says, and the socket is closed at the end."""
    kernel = Kernel()
    probe = opened(kernel, monkeypatch)
    kernel.is_gone = True
    with pytest.raises(TestbedError, match="wlan0: the kernel does not answer nl80211 requests: No such device"):
        probe.read()
    kernel.is_gone = False
    probe.close()
    assert kernel.is_gone


def test_a_wired_interface_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the wireless ones."""
    monkeypatch.setattr(wifi, "IW", Kernel)
    with pytest.raises(HostError, match="eth0 is not a wireless interface; wireless here: wlan0"):
        WifiProbe("eth0", 1.0).open()


def test_a_kernel_without_wireless_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyroute2 finds no nl80211 there."""

    def refuse() -> None:
        raise NetlinkError(2, "No such file or directory")

    monkeypatch.setattr(wifi, "IW", refuse)
    with pytest.raises(HostError, match="the kernel does not answer nl80211 requests: No such file or directory"):
        WifiProbe("wlan0", 1.0).open()


@pytest.mark.parametrize(
    ("frequency_mhz", "channel"),
    [
        (2412, 1),
        (2472, 13),
        (2484, 14),
        (5180, 36),
        (5500, 100),
        (5885, 177),
        (5955, 1),
        (7115, 233),
        (2413, None),
        (60480, None),
    ],
)
def test_channels_are_numbered_by_band(frequency_mhz: int, channel: int | None) -> None:
    """2.4, 5 and 6 GHz; none elsewhere."""
    assert channel_of(frequency_mhz) == channel
