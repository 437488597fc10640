"""Looks: one a link and one a phase, the same in every figure.

From the palette of Okabe and Ito (2008), which readers with any common colour blindness can tell apart. In grey print what
is close in lightness differs in hatch, line style or marker.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 7,  # none is smaller: readable where the picture is a column wide
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,  # a name may hold a dollar sign
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "legend.frameon": False,
    "svg.hashsalt": "fltestbed",  # the same runs give the same bytes
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: publishers refuse type 3
}


@dataclass(frozen=True)
class Look:
    """How one thing is drawn: as a line by colour, dashes and marker, as an area by colour and hatch."""

    colour: str
    dashes: str = "-"
    marker: str = "o"
    hatch: str = ""

    @property
    def _pale(self) -> bool:
        red, green, blue = to_rgb(self.colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.75

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of matplotlib for a line; one that is hardly darker than paper has a dark edge."""
        edge = {"path_effects": [withStroke(linewidth=2.2, foreground="#555555")]} if self._pale else {}
        return {"color": self.colour, "linestyle": self.dashes, "marker": self.marker} | edge

    @property
    def area(self) -> dict[str, Any]:
        """Arguments of matplotlib for an area."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "#333333", "linewidth": 0.4}


Palettes = dict[str, dict[str, Look]]

_LINKS = {
    "5g": Look(VERMILLION, "-", "o"),
    "wifi": Look(BLUE, "--", "s"),
    "ethernet": Look(BLACK, ":", "^"),
}
_OTHER_LINKS = (
    Look(GREEN, "-.", "D"),
    Look(PURPLE, "-", "v"),
    Look(ORANGE, "--", "P"),
    Look(SKY, ":", "X"),
)
_PHASES = {
    "configure": Look("#595959", "-", "|"),
    "queue": Look(ORANGE, "-", "_"),
    "connect": Look(BLACK, "-", "."),
    "downlink": Look(SKY, "--", "v", hatch="\\\\\\\\"),
    "deserialize": Look("#B3B3B3", ":", "1", hatch="...."),
    "train": Look(GREEN, "-", "s"),
    "evaluate": Look(YELLOW, "-.", "D"),
    "serialize": Look("#B3B3B3", ":", "2", hatch="xxxx"),
    "uplink": Look(VERMILLION, "-", "^", hatch="////"),
    "collect": Look("#8C8C8C", ":", "+", hatch="++++"),
    "wait": Look("#F2F2F2", "-", "o"),
    "aggregate": Look(PURPLE, "-.", "P", hatch="||||"),
    "server_evaluate": Look(BLUE, "-", "X"),
    "other": Look("#CFCFCF", ":", "x"),
    "unexplained": Look("#FFFFFF", ":", "*", hatch="xx"),
}

MARKS = {"one transfer": "o", "all clients together": "D", "capacity": "|"}
"""Markers of the kinds of marks in a form ``ranges``."""

_CLIENT_SHADES = ("#00224E", "#7C7B78", "#BCAF6F", "#434E6C", "#E3C95B")
_CLIENT_DASHES = ("-", "--", ":", "-.")
_CLIENT_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def palettes(links: Iterable[str], clients: Iterable[str]) -> Palettes:
    """Return the look of each link, phase and client.

    Links without a fixed look get the others, in order of their names. Clients have shades of cividis, whose lightness alone
    tells them apart, with dashes and markers that repeat after more clients than a legend bears.
    """
    links, others = dict.fromkeys(links), cycle(_OTHER_LINKS)
    own = {link: next(others) for link in sorted(set(links) - set(_LINKS))}
    shades = zip(clients, cycle(_CLIENT_SHADES), cycle(_CLIENT_DASHES), cycle(_CLIENT_MARKERS), strict=False)
    return {
        "link": {link: own.get(link) or _LINKS[link] for link in links},
        "phase": _PHASES,
        "client": {name: Look(colour, dashes, marker) for name, colour, dashes, marker in shades},
    }
