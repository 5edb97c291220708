"""What the tests of registries ask besides."""

from __future__ import annotations

from opencluster.core.registry import Registry


def first_expiry(registry: Registry) -> float | None:
    """Return when the first lease ends, or ``None`` when nobody is here."""
    records = registry._records.values()
    return min((record.expires_at for record in records), default=None)
