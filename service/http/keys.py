"""API keys with roles, kept as hashes in a file that is read again when it changes."""

import hmac
import logging
import os
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from model.errors import ExpectedError
from model.store.files import locked, sync_folder
from service.choices import Role

log = logging.getLogger(__name__)

KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY_BYTES = 32


class KeyFileError(ExpectedError):
    """The file of keys cannot be read or changed as asked; the message says why."""


class UnreadableKeyFileError(KeyFileError):
    """The file of keys is not there, or the system does not let it be read now."""


@dataclass(frozen=True)
class Key:
    """One line of the file: a name for people, a role, and the key's SHA-256, 64 hexadecimal digits."""

    name: str
    role: Role
    digest: str

    def __str__(self) -> str:
        return f"{self.name} {self.role} {self.digest}"


def digest_of(key: str) -> str:
    """What is stored of a key. Keys are 256 random bits, so that one round of SHA-256 is enough."""
    return sha256(key.encode()).hexdigest()


def parse_keys(text: str) -> list[Key]:
    """The keys of a file's text: a line ``NAME ROLE SHA256HEX`` for each; ``#`` starts a comment.

    Raises:
        KeyFileError: a line is of another form, or a name stands there twice; the message tells the line's number.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or not KEY_NAME.fullmatch(words[0]) or not re.fullmatch("[0-9a-f]{64}", words[2]):
            raise KeyFileError(f"line {number} is not NAME ROLE SHA256HEX")
        if words[1] not in list(Role):
            raise KeyFileError(f"line {number}: the role {words[1]!r} is not one of {', '.join(Role)}")
        if words[0] in keys:
            raise KeyFileError(f"line {number}: the name {words[0]!r} stands there twice")
        keys[words[0]] = Key(words[0], Role(words[1]), words[2])
    return list(keys.values())


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        KeyFileError: see `parse_keys`, or the file cannot be read; the message names the file.
    """
    try:
        return parse_keys(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableKeyFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"{path}: not a text file") from None
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from None


def create_key(path: Path, name: str, role: Role) -> str:
    """Makes a key, adds its line to the file (made if it is not there) and returns the key, which is kept nowhere.

    Raises:
        KeyFileError: the file is damaged, or has the name already, or the name is none.
        OSError: the file cannot be written.
    """
    if not KEY_NAME.fullmatch(name):
        raise KeyFileError(f"{name!r} is no name for a key: letters, digits, '.', '_' and '-', at most 64")
    with locked(path.parent):
        if path.exists() and any(key.name == name for key in read_keys(path)):
            raise KeyFileError(f"{path} has a key {name!r} already; revoke it, or choose another name")
        token = secrets.token_urlsafe(KEY_BYTES)
        text = path.read_text(encoding="utf-8") if path.exists() else "# NAME ROLE SHA256HEX\n"
        if text and not text.endswith("\n"):
            text += "\n"
        _write(path, f"{text}{Key(name, role, digest_of(token))}\n")
    return token


def revoke_key(path: Path, name: str) -> None:
    """Takes a key's line out of the file.

    Raises:
        KeyFileError: the file is damaged or has no such key.
        OSError: the file cannot be written.
    """
    if not path.exists():
        read_keys(path)  # says so
    with locked(path.parent):
        if all(key.name != name for key in read_keys(path)):
            raise KeyFileError(f"{path} has no key {name!r}")
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        _write(path, "".join(line for line in lines if line.partition("#")[0].split()[:1] != [name]))


def _write(path: Path, text: str) -> None:
    """Replaces a file in one step; only its owner may read it. An owner other than us stays the owner."""
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        temporary = Path(new.name)
        try:
            new.write(text)  # the file was made with mode 0600
            new.flush()
            os.fsync(new.fileno())
            if path.exists() and path.stat().st_uid != os.geteuid():
                os.chown(temporary, path.stat().st_uid, path.stat().st_gid)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


class KeyRing:
    """The keys of a file, read again when the file changes. After a damaged file the last good keys stay valid.

    Raises:
        KeyFileError: the file is damaged or missing when it is first read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._stamp()
        self._keys = read_keys(path)
        log.log(logging.INFO if self._keys else logging.WARNING, "%d keys in %s", len(self._keys), path)

    def find(self, token: str) -> Key | None:
        """The key that a client has shown. Every line is compared, in the same time wherever they differ."""
        self._refresh()
        shown = digest_of(token)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, shown):
                found = key
        return found

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            now = self._path.stat()
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read_keys(self._path)
        except KeyFileError as error:
            if isinstance(error, UnreadableKeyFileError):
                self._seen = None  # the next call tries again; a key that was revoked must not stay
            log.error("the last good keys stay valid: %s", error)
        else:
            log.info("%d keys in %s, read again", len(self._keys), self._path)
