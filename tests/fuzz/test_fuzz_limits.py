"""Which settings bound what comes in, at each receiver; each is told when it is ill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import fuzz_clients
import fuzz_factory
import pytest
from fuzz_clients import FACTORY
from fuzz_episode import Episode
from fuzz_mutation import pack
from fuzz_net import in_memory, received
from fuzz_targets import TARGETS

from opencluster.config import Config, load
from opencluster.config.settings import LimitSettings
from opencluster.errors import ConfigError
from opencluster.wire import kinds

RECEIVERS = ("factory", "link", "worker", "workshop", "manager")
NESTING = 40
Settings = Mapping[tuple[str, str], str]


@pytest.fixture
def limited(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, Settings], Any]:
    """Return what builds a receiver under some settings, without a net."""
    make: Callable[..., Config] = fuzz_factory.config

    @contextmanager
    def receiver(name: str, settings: Settings) -> Iterator[Episode]:
        def config(quorum: str, more: Settings | None = None) -> Config:
            return make(quorum, {**(more or {}), **settings})

        for module in (fuzz_factory, fuzz_clients):
            monkeypatch.setattr(module, "config", config)
        kind = next(kind for kind in TARGETS if kind.name == name)
        with in_memory(kind.modules, kind.stand_ins):
            episode = kind(Random(1))
            try:
                yield episode
            finally:
                episode.close()

    return receiver


@pytest.mark.parametrize("name", RECEIVERS)
def test_nesting_is_bounded_at_every_receiver(
    limited: Callable[[str, Settings], Any], name: str
) -> None:
    with limited(name, {("limits", "max_nesting"): str(NESTING)}) as episode:
        counts = episode.transport.counts
        for levels, rejected in ((NESTING - 1, 0), (NESTING, 1)):
            value: Any = 0
            for _ in range(levels):
                value = [value]
            header = pack([kinds.REPLY, 1, True, value])
            episode.reactor.receive(received(FACTORY, header))
            assert counts.rejected_messages == rejected
        episode.answers()


@pytest.mark.parametrize("name", RECEIVERS)
@pytest.mark.parametrize("of_daemons", ["32MiB", "1GiB"])
def test_size_and_number_of_messages_are_bounded_by_the_transport(
    limited: Callable[[str, Settings], Any], name: str, of_daemons: str
) -> None:
    settings = {
        ("network", "max_message_bytes"): "64MiB",
        ("limits", "max_request_bytes"): of_daemons,
        ("limits", "max_queued_messages"): "123",
    }
    with limited(name, settings) as episode:
        given = episode.transport.settings
    is_daemon = name in ("factory", "workshop")
    is_smaller = is_daemon and of_daemons == "32MiB"
    assert given["max_message_bytes"] == (32 << 20 if is_smaller else 64 << 20)
    assert given.get("max_queued", 0) == (123 if is_daemon else 0)


def test_texts_and_entries_are_bounded_by_the_settings(
    limited: Callable[[str, Settings], Any],
) -> None:
    settings = {
        ("limits", "max_text"): "300",
        ("limits", "max_entry_bytes"): "200000",
        ("limits", "max_entries_per_client"): "3",
    }
    with limited("factory", settings) as episode:
        registry = episode.target.registry
        assert registry.max_entries == fuzz_factory.MAX_ENTRIES
    assert registry.max_entries_per_client == 3
    assert (registry.bounds.max_text, registry.bounds.max_bytes) == (300, 200_000)


# --- settings that make no sense ------------------------------------------------------


@pytest.mark.parametrize("value", ["none", "-1", "0", "1e3", ""])
@pytest.mark.parametrize("key", LimitSettings.settings)
def test_ill_limits_are_refused_with_where_they_stand(
    tmp_path: Path, key: str, value: str
) -> None:
    path = tmp_path / "limits.ini"
    path.write_text(f"[limits]\n{key} = {value}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load([path], environ={})
    told = str(refused.value)
    assert str(path) in told and "[limits]" in told and key in told


@pytest.mark.parametrize("key", LimitSettings.settings)
def test_each_limit_says_which_values_it_takes(tmp_path: Path, key: str) -> None:
    least = LimitSettings.settings[key].minimum
    assert least is not None and least >= 1
    path = tmp_path / "limits.ini"
    path.write_text(f"[limits]\n{key} = {int(least)}\n", encoding="utf-8")
    assert getattr(load([path], environ={}).limits, key) == least
    path.write_text(f"[limits]\n{key} = {int(least) - 1}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[limits\] .*(at least|from) "):
        load([path], environ={})


def test_each_limit_is_in_the_page_of_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| ")]
    for key in LimitSettings.settings:
        assert any(f"`{key}`" in row for row in rows), key
