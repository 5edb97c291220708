"""Who may send from another computer: certificates on both sides."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from opencluster.errors import ConfigError


@dataclass(frozen=True)
class TLSFiles:
    """Files in PEM.

    Attributes
    ----------
    certificate : Path
        One's own, with those that lead to its authority if there are any.
    key : Path
        Its private key.
    authority : Path
        Who signs the certificates of the other side.
    """

    certificate: Path
    key: Path
    authority: Path

    def for_server(self) -> ssl.SSLContext:
        """Return what a server needs, which lets in only who has a certificate.

        Raises
        ------
        ConfigError
            When a file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._load(context)

    def for_client(self) -> ssl.SSLContext:
        """Return what a sender needs.

        Raises
        ------
        ConfigError
            When a file cannot be used.
        """
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the TLS files {self.certificate}, {self.key} and {self.authority} "
                f"cannot be used: {error}; all three are PEM, and the key belongs to "
                "the certificate"
            ) from None
        return context
