"""Signal, bit rates, channel, width and power save of a WiFi interface, from the kernel by nl80211.

pyroute2 takes 0.2 s of CPU time to import, so this module is imported only where `WIRELESS_DEVICES` are.
"""

import struct
from typing import Any

from pyroute2 import IW
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nl80211 import NL80211_CMD_GET_POWER_SAVE, nl80211cmd

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.probe import Row

WIDTHS_MHZ = {
    0: 20, 1: 20, 2: 40, 3: 80, 4: 160, 5: 160, 6: 5, 7: 10, 8: 1, 9: 2, 10: 4, 11: 8, 12: 16, 13: 320,
}  # fmt: skip
"""enum nl80211_chan_width of the kernel; 80+80 counts as 160."""

BANDS_MHZ = ((2412, 2472, 2407), (5160, 5885, 5000), (5955, 7115, 5950))
"""Of each band the centres of its first and last channel, and the frequency that channels count from, 5 MHz each (IEEE
802.11, annex E)."""

BIT_RATE_UNIT_BPS = 100_000


class WifiProbe:
    """Reads the access point that an interface is associated with.

    Parameters
    ----------
    interface : str
    interval_s : float
    """

    name = "wifi"
    table = "radio"
    joins = False

    def __init__(self, interface: str, interval_s: float) -> None:
        self.interval_s = interval_s
        self._interface = interface
        self._socket: Any = None
        self._index = 0

    def open(self) -> dict[str, Any]:
        """Find the interface among the kernel's wireless ones."""
        try:
            self._socket = IW()
            found = {
                message.get_attr("NL80211_ATTR_IFNAME"): message.get_attr("NL80211_ATTR_IFINDEX")
                for message in self._socket.get_interfaces_dump()
            }
        except (OSError, NetlinkError) as error:
            raise HostError(f"the kernel does not answer nl80211 requests: {_reason(error)}") from error
        if self._interface not in found:
            names = ", ".join(sorted(filter(None, found))) or "none"
            raise HostError(f"{self._interface} is not a wireless interface; wireless here: {names}")
        self._index = found[self._interface]
        return {"reads": "nl80211"}

    def read(self) -> list[Row]:
        """One row; what the driver does not tell, and the signal while not associated, stays empty."""
        try:
            interface = next(iter(self._socket.get_interface_by_ifindex(self._index)), None)
            access_point = next(iter(self._socket.get_stations(self._index)), None)
            power_save = self._power_save()
        except (OSError, NetlinkError) as error:
            raise TestbedError(
                f"{self._interface}: the kernel does not answer nl80211 requests: {_reason(error)}"
            ) from error
        row: Row = {"interface": self._interface, "technology": "wifi", "power_save": power_save}
        if interface is not None:
            row |= _of_channel(interface)
        if access_point is not None:
            row |= _of_access_point(access_point)
        return [row]

    def close(self) -> dict[str, Any]:
        """Nothing was changed."""
        if self._socket is not None:
            self._socket.close()
        return {}

    def _power_save(self) -> bool | None:
        """Whether the radio may sleep between beacons; None where the driver has no such setting."""
        request = nl80211cmd()
        request["cmd"] = NL80211_CMD_GET_POWER_SAVE
        request["attrs"] = [["NL80211_ATTR_IFINDEX", self._index]]
        try:
            answers = list(
                self._socket.nlm_request(request, msg_type=self._socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)
            )
        except NetlinkError:
            return None
        states = [state for answer in answers if (state := answer.get_attr("NL80211_ATTR_PS_STATE")) is not None]
        return _integer(states[0]) == 1 if states else None


def channel_of(frequency_mhz: int) -> int | None:
    """Number of the WiFi channel whose centre is at a frequency; None outside of the bands."""
    if frequency_mhz == 2484:
        return 14
    for first, last, zero in BANDS_MHZ:
        if first <= frequency_mhz <= last and (frequency_mhz - zero) % 5 == 0:
            return (frequency_mhz - zero) // 5
    return None


def _of_channel(interface: Any) -> Row:
    frequency_mhz = interface.get_attr("NL80211_ATTR_WIPHY_FREQ")
    if not frequency_mhz:
        return {}
    width = interface.get_attr("NL80211_ATTR_CHANNEL_WIDTH")
    return {
        "frequency_mhz": float(frequency_mhz),
        "channel": channel_of(frequency_mhz),
        "channel_width_mhz": WIDTHS_MHZ.get(width),
    }


def _of_access_point(station: Any) -> Row:
    row: Row = {"cell": station.get_attr("NL80211_ATTR_MAC")}
    facts = station.get_attr("NL80211_ATTR_STA_INFO")
    if facts is None:
        return row
    signal_dbm = facts.get_attr("NL80211_STA_INFO_SIGNAL")
    if signal_dbm is not None:
        row["rssi_dbm"] = float(signal_dbm)
    for direction in ("tx", "rx"):
        rate = facts.get_attr(f"NL80211_STA_INFO_{direction.upper()}_BITRATE")
        if rate is not None:
            # the 16-bit field ends at 6.5 Gbit/s; the kernel leaves it out for faster rates
            units = rate.get_attr("NL80211_RATE_INFO_BITRATE32") or rate.get_attr("NL80211_RATE_INFO_BITRATE")
            row[f"{direction}_bit_rate_bps"] = float(units * BIT_RATE_UNIT_BPS) if units else None
    return row


def _integer(attribute: int | str) -> int:
    """A u32, which pyroute2 hands out as hexadecimal bytes where it does not know the attribute's type."""
    if isinstance(attribute, int):
        return attribute
    (value,) = struct.unpack("=I", bytes.fromhex(attribute.replace(":", "")))
    return int(value)


def _reason(error: Exception) -> str:
    return str(error.args[1] if len(error.args) > 1 else error)
