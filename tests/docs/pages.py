"""Takes the code blocks out of a page, with what its invisible comments say of them.

A comment right before a block may say, each in a paragraph of its own::

    <!-- on node1 -->              it is run on this of three computers, or on each
    <!-- before: CODE -->          what is run first, in the language of the block
    <!-- after: CODE -->           what is run then, such as an assertion
    <!-- run by tests/... -->      another test runs it
    <!-- not run: REASON -->       it cannot be run; what it names is checked
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMENT = r"<!--(?:(?!-->).)*-->\n+"
FENCE = re.compile(
    rf"(?P<comments>(?:{COMMENT})*)"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
KINDS = ("on", "before", "after", "run by", "not run")


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes
    ----------
    page : Path
        Where it stands.
    line : int
        Where its text begins.
    language : str
        As the page says, or empty.
    text : str
        What it holds.
    marks : dict of str to str
        What the comments before it say, by their kind.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file_name(self) -> str:
        """The file that it is, if its first line is a comment with a name alone."""
        found = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return found[1] if found else ""


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("text")) + 1,
            found["language"],
            dedent(found["text"]),
            dict(_marks(found["comments"])),
        )
        for found in FENCE.finditer(text)
    ]


def _marks(comments: str) -> Iterator[tuple[str, str]]:
    for said in re.findall(r"<!--(.*?)-->", comments, re.DOTALL):
        for kind in KINDS:
            found = re.match(rf"\s*{kind}:?\s(.*)", said, re.DOTALL)
            if found:
                yield kind, dedent(found[1].strip("\n ")) + "\n"


def has_fences_only_in_pairs(page: Path) -> bool:
    """Tell whether all fences of a page were understood."""
    fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)
    return len(fences) == 2 * len(blocks_of(page))
