"""What a progress bar tells, on a terminal that is none."""

from __future__ import annotations

import pytest

from opencluster import progress
from opencluster.progress import bar, moved_text


@pytest.mark.parametrize(
    ("moved", "text"),
    [
        ((0, 0, 0, 0), ""),
        ((2_100_000_000, 4_000_000_000, 0, 0), "2.1/4.0 GB sent"),
        ((0, 0, 12_300_000, 64_000_000), "12.3/64.0 MB received"),
        ((0, 10**9, 5 * 10**8, 10**9), "0.0/1.0 GB sent, 0.5/1.0 GB received"),
    ],
)
def test_large_pieces_on_their_way_are_told_in_words(
    moved: tuple[int, int, int, int], text: str
) -> None:
    assert moved_text(moved) == text


def test_a_bar_tells_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", "120")
    with bar("Image", 5, lambda: (10**9, 3 * 10**9, 0, 0)) as one:
        one.advance()
        shown = progress._display._progress
        assert shown is not None
        console = Console(record=True, width=120, file=shown.console.file)
        console.print(shown.get_renderable())
        text = console.export_text()
    assert "Image" in text and "1/5" in text and "1.0/3.0 GB sent" in text
