"""Emulated links: what stands between server and clients when there is no radio at hand.

A `LinkProfile` says what the link is like, an `EmulatedNetwork` makes it from network namespaces and one of three backends,
and `ensure_privilege` gets an ordinary user the right to do so. `EmulatedNetwork.describe` says what was not emulated.
"""

from fltestbed.links.namespace import InterfaceCounters
from fltestbed.links.privilege import ensure_privilege
from fltestbed.links.profile import LinkProfile, load_link
from fltestbed.links.topology import EmulatedNetwork, Host

__all__ = ["EmulatedNetwork", "Host", "InterfaceCounters", "LinkProfile", "ensure_privilege", "load_link"]
