"""What docs/security.md says of the roles is what the table of rules says."""

from __future__ import annotations

from pathlib import Path

import pytest

from opencluster.core.roles import ROLES, RULES, Credential, refusal

PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"
BEGIN, END = "<!-- roles -->\n", "<!-- end of roles -->"


def rendered() -> str:
    """Return the table of rules in Markdown."""
    head = ["to a", "message", "which is to", *ROLES]
    rows = [head, ["---"] * len(head)]
    for (receiver, what), rule in RULES.items():
        may = ["yes" if role in rule.roles else "-" for role in ROLES]
        rows.append([receiver, f"`{what}`", rule.deed, *may])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_page_has_the_table_of_roles() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition(BEGIN)[2].partition(END)[0]
    assert table == rendered(), f"write this into {PAGE}:\n{rendered()}"


@pytest.mark.parametrize(
    "sentence",
    [
        refusal("factory", "register", Credential("alice", "manager")),
        "wants keys; this process has none",
        "has no keys, while this process has some",
        "does not admit the certificate of this process",
        "another key than was expected",
    ],
)
def test_the_page_explains_the_messages(sentence: str) -> None:
    assert sentence in PAGE.read_text(encoding="utf-8")
