"""Reads the certificate and the key that encrypt the port, at the start and while it serves."""

from __future__ import annotations

import ssl
from pathlib import Path

from shadowsim.errors import InputError


class Certificate:
    """A certificate and its key in two files of PEM, and the TLS context that uses them.

    Parameters
    ----------
    certificate, key : Path
        The certificate comes first in its file, then those that lead to a known authority.

    Attributes
    ----------
    context : ssl.SSLContext

    Raises
    ------
    InputError
        A file cannot be read, or they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path):
        self._certificate, self._key = certificate, key
        self.context = self._read()

    def __reduce__(self) -> tuple[type[Certificate], tuple[Path, Path]]:
        return type(self), (self._certificate, self._key)

    def read_again(self) -> None:
        """Use what the files hold now for new connections; after an error what was in force stays.

        Raises
        ------
        InputError
        """
        self._read()  # a context that fails halfway would be left with neither
        self._load(self.context)

    def _read(self) -> ssl.SSLContext:
        for option, file in (("--tls-cert", self._certificate), ("--tls-key", self._key)):
            try:
                text = file.read_bytes()
            except OSError as error:
                raise InputError(option, f"{file} cannot be read: {error.strerror}") from None
            if b"-----BEGIN" not in text:
                raise InputError(option, f"must be a PEM file, and {file} is none")
            if option == "--tls-key" and b"ENCRYPTED" in text:
                raise InputError(option, f"must be a key without a pass phrase, and {file} has one")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certificate, self._key, password="")  # else OpenSSL may ask the terminal
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or str(error)
            if reason == "KEY_VALUES_MISMATCH":
                raise InputError(
                    "--tls-key", f"must be the key of {self._certificate}, and {self._key} is not"
                ) from None
            reason = reason.lower().replace("_", " ")
            what = f"must be a certificate, and {self._key} its key: they cannot be used ({reason})"
            raise InputError("--tls-cert", what, str(self._certificate)) from None
