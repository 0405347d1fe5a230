"""Who is signed in: cookies that one server signs and no other takes, until somebody signs out."""

import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from itsdangerous import BadSignature, TimestampSigner

from blockrate.run.durable import atomic_write

SECONDS = 30 * 86400  # that a session lasts
_SHORTEST = 32  # characters of a key


class SignIns:
    """The sessions of the server at ``place``, which is an address and a port.

    ``file``: where its key is kept, so that sessions outlive a restart of it; None keeps it nowhere. ``cookie``: the
    name that theirs have.
    """

    def __init__(
        self,
        key: bytes,
        place: str,
        file: Path | None = None,
        *,
        cookie: str = "blockrate",
    ) -> None:
        if len(key) < _SHORTEST:
            raise ValueError(f"a key needs at least {_SHORTEST} characters")
        self.cookie = cookie
        self._place = place
        self._file = file
        self._signer = self._signer_of(key)

    def begin(self) -> str:
        """Return the cookie of a new session."""
        return self._signer.sign(secrets.token_urlsafe(16)).decode()

    def hold(self, cookie: str) -> bool:
        """Whether a cookie is of a session that lasts."""
        with suppress(BadSignature):
            return bool(self._signer.unsign(cookie, max_age=SECONDS))
        return False

    def end_all(self) -> None:
        """Let no session be one any more. Raises WriteError where that would not outlive a restart."""
        key = _new_key()
        self._signer = self._signer_of(key)
        if self._file:
            atomic_write(self._file, key, mode=0o600)

    def _signer_of(self, key: bytes) -> TimestampSigner:
        salt = f"blockrate session {self._place}"
        return TimestampSigner(key, salt=salt, digest_method=sha256)


def read_key(file: Path) -> bytes:
    """The key that signs sessions, made on first use; only its owner may read it. Raises WriteError."""
    key = file.read_bytes() if file.is_file() else b""
    if len(key) < _SHORTEST:
        key = _new_key()
        atomic_write(file, key, mode=0o600)
    file.chmod(0o600)
    return key


def _new_key() -> bytes:
    return secrets.token_hex(32).encode()
