"""Colours: one a link and one a phase, the same in every figure.

From the palette of Okabe and Ito (2008), which readers with any common colour blindness can tell apart. In grey print what
is close in lightness differs in hatch, line style or marker.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
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
    def line(self) -> dict[str, Any]:
        """Arguments of matplotlib for a line."""
        return {"color": self.colour, "linestyle": self.dashes, "marker": self.marker}

    @property
    def area(self) -> dict[str, Any]:
        """Arguments of matplotlib for an area."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "#333333", "linewidth": 0.4}


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
    "configure": Look("#595959"),
    "queue": Look(ORANGE),
    "connect": Look(BLACK),
    "downlink": Look(SKY, hatch="\\\\\\\\"),
    "deserialize": Look("#B3B3B3", hatch="...."),
    "train": Look(GREEN),
    "evaluate": Look(YELLOW),
    "serialize": Look("#B3B3B3", hatch="xxxx"),
    "uplink": Look(VERMILLION, hatch="////"),
    "collect": Look("#8C8C8C", hatch="++++"),
    "wait": Look("#F2F2F2"),
    "aggregate": Look(PURPLE, hatch="||||"),
    "server_evaluate": Look(BLUE),
    "other": Look("#CFCFCF"),
    "unexplained": Look("#FFFFFF", hatch="xx"),
}


def looks(links: Iterable[str]) -> dict[str, Look]:
    """Return the look of each link, then of each phase; links without a fixed one get the others in order of their names."""
    others = cycle(_OTHER_LINKS)
    own = {link: next(others) for link in sorted(set(links) - set(_LINKS))}
    return {link: own.get(link) or _LINKS[link] for link in dict.fromkeys(links)} | _PHASES
