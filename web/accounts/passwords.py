"""Passwords: which will do, their hashes, and whether one is right."""

from __future__ import annotations

import secrets
import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from opencluster.errors import AccountError

MIN_PASSWORD = 10
MAX_PASSWORD = 1000
"""Characters; a longer one would only keep the server busy."""
HASHED_AT_ONCE = 2
"""Passwords; each takes 64 MiB, so that many who knock cannot fill the memory."""


class Passwords:
    """Hashes passwords, and checks them against hashes, some at once.

    Parameters
    ----------
    hasher : PasswordHasher, optional
        How; by default as argon2-cffi recommends.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._hashing = threading.BoundedSemaphore(HASHED_AT_ONCE)
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def hashed(self, password: str) -> str:
        """Return the hash of a new password.

        Raises
        ------
        AccountError
            When it is too short or too long.
        """
        if len(password) < MIN_PASSWORD:
            raise AccountError(f"a password has at least {MIN_PASSWORD} characters")
        if len(password) > MAX_PASSWORD:
            raise AccountError(f"a password has at most {MAX_PASSWORD} characters")
        with self._hashing:
            return self._hasher.hash(_bytes(password))

    def is_right(self, expected: str, password: str) -> bool:
        """Return whether a password has a hash.

        Parameters
        ----------
        expected : str
            The hash; empty where there is none, which takes as long and is never right.
        password : str
            What somebody typed.
        """
        try:
            with self._hashing:
                self._hasher.verify(
                    expected or self._nobody, _bytes(password[: MAX_PASSWORD + 1])
                )
        except (VerificationError, InvalidHashError):
            return False
        return bool(expected)

    def is_weak(self, hashed: str) -> bool:
        """Return whether a hash is of another time, and a new one would be better."""
        return self._hasher.check_needs_rehash(hashed)


def _bytes(password: str) -> bytes:
    # the same characters may come in another form from another keyboard
    return unicodedata.normalize("NFC", password).encode(errors="surrogatepass")
