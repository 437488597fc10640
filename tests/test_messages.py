"""Every message that a user can meet, found in the source: one line that says what, where, and what to do.

A message that names no next step has its place in `docs/messages.md`, where the next step stands; a row there of which the
message is gone is in the way of a reader too. What passes on another's words (``{error}`` alone) is that other's business,
and what a probe could not read is no message but a reason in the manifest.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from fltestbed import errors

ROOT = Path(__file__).parents[1]
LIST = ROOT / "docs" / "messages.md"
FAMILY = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.TestbedError)}
REFUSALS = {"JoinRefused", "NotJoined", "SessionLost"}
NEXT_STEP = re.compile(
    r"; ?[a-z{]|\?$|pip install|apt install|\b(give|choose|so it is|use one of|please upgrade|lower|install|add|set|drop|"
    r"start|wait for|run as root|bring it up|at most|allowed|needs?|make (one|some|a new one)|try again|so give)\b"
)
PLACE = re.compile(
    r"\{|--\w|[a-z]+[.-][a-z]+|^(the server|the app|this client|the S|bench|gcc|competing-flow|Flower|"
    r"emulated links|CIFAR|wirefilter)"
)
FILLED_IN = re.compile(r"\{[^}]*\}")
PASSED_ON = re.compile(r"^(\{[^}]*\}(: )?)*$")


@dataclass(frozen=True)
class Site:
    """Where a message is made, and its text with what is filled in as braces."""

    file: str
    line: int
    kind: str
    text: str

    @property
    def listed_as(self) -> str:
        """The text as the list has it."""
        return FILLED_IN.sub("…", self.text).replace("|", "\\|")

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}: {self.text}"


def text_of(node: ast.expr) -> str:
    """A string as it stands in the source; whatever is filled in is its name in braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + re.sub(r"[{}]", "", ast.unparse(node.value)) + "}"
    return "{" + re.sub(r"[{}]", "", ast.unparse(node)) + "}"


def find_sites() -> list[Site]:
    """Every place in the packages where an error of the family, or a refusal that a client shows, is made with a text."""
    sites: list[Site] = []
    for path in sorted([*(ROOT / "fltestbed").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("fltestbed/measure/probes/"):
            continue
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args)
        named = ((call.func.id, call) for call in calls if isinstance(call.func, ast.Name))
        made = ((kind, call) for kind, call in named if kind in FAMILY | REFUSALS)
        sites.extend(Site(name, call.lineno, kind, text_of(call.args[0])) for kind, call in made)
    return sites


SITES = find_sites()
OWN = [site for site in SITES if not PASSED_ON.match(site.text)]


def listed() -> dict[str, str]:
    """What to do, by message, from the rows of the list; ``…`` stands for what is filled in."""
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|$", LIST.read_text(), re.MULTILINE)
    return {message: advice for message, advice in rows if message != "message"}


def test_the_walk_finds_the_messages() -> None:
    """A hundred of them and more, of each kind of error, with their texts."""
    assert len(OWN) > 120
    assert {site.kind for site in SITES} == FAMILY | REFUSALS
    assert any(site.text == "{folder}: exists already; choose another name with --name, or move it away" for site in OWN)


@pytest.mark.parametrize("site", OWN, ids=str)
def test_a_message_is_one_line(site: Site) -> None:
    """No line end, no full stop, no shouting, and short enough to be read."""
    filled = FILLED_IN.sub("x", site.text)
    assert "\n" not in filled, site
    assert not filled.endswith((".", "!")), site
    assert len(filled) < 260, site


@pytest.mark.parametrize("site", OWN, ids=str)
def test_a_message_says_where(site: Site) -> None:
    """A file, a key, a flag, an address, a host or a program: something that is filled in, or its name."""
    assert PLACE.search(site.text), site


def test_a_message_says_what_to_do() -> None:
    """In itself, or in the list."""
    known = listed()
    lacking = [str(site) for site in OWN if not NEXT_STEP.search(site.text) and site.listed_as not in known]
    assert not lacking, "\n".join(["say what to do, or add a row to docs/messages.md:", *lacking])


def test_the_list_is_of_messages_that_there_are() -> None:
    """A message that was reworded is listed under its new words, or not at all."""
    assert not listed().keys() - {site.listed_as for site in OWN}
