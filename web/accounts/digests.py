"""Secrets that are random and long, and what is kept of them: as SHA-256."""

from __future__ import annotations

import hashlib
import secrets


def new_secret() -> str:
    """Return a new secret, which fits into an address."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a secret; nobody guesses the secret by it."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
