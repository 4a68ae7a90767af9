"""What was computed from some bytes, kept on disk and found again by those bytes: objects, proofs.

A key is a hash of everything that the result depends on, the sources of whoever computes it among them: an
entry is never out of date, only never asked for again.

**Trust.** A proof that is read from here is believed: whoever can write the cache can have unverified code
run. So the cache belongs to the user that verifies, and to nobody else: its directory and its entries must be
owned by the effective user and closed to all others, and are otherwise not used, neither read nor repaired.
Someone who can act as that user could as well change devbc itself. The checksum is against torn writes and
bad disks, not against people. A service that verifies for others keeps a cache of its own, and never takes
entries from its clients.

Nothing here ever fails: a cache that cannot be read or written is one that holds nothing. Not here: what the
bytes of an entry mean (`devbc.program.stored` for proofs, which takes its input for hostile all the same).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from devbc import limits

#: Set to anything but the empty string or 0, it keeps every command from using the cache.
DISABLE: Final = "DEVBC_NO_CACHE"

_DIGEST_BYTES: Final = 32
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Cache:
    """Entries in one directory; without a directory, nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def get(self, key: str) -> bytes | None:
        """What was put under a key, if it is there and whole."""
        if self._directory is None or not _private_directory(self._directory):
            return None
        try:
            data = _read(self._directory / key)
        except OSError:
            return None
        if data is None:
            return None
        digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return content if digest == _checksum(key, content) else None

    def put(self, key: str, content: bytes) -> None:
        """Keep a result; whole or not at all, and silently not if it cannot be."""
        directory = self._directory
        if directory is None or len(content) + _DIGEST_BYTES > limits.CACHE_ENTRY_BYTES:
            return
        temporary = directory / f".{key}.{os.getpid()}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _private_directory(directory):
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600), "wb") as entry:
                entry.write(_checksum(key, content) + content)
            temporary.replace(directory / key)
            self._prune(directory)
        except OSError:
            with suppress(OSError):
                temporary.unlink()

    def _prune(self, directory: Path) -> None:
        """Drop the older half when there are too many entries."""
        entries = list(os.scandir(directory))
        if len(entries) <= limits.CACHE_ENTRIES:
            return
        entries.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
        for entry in entries[: len(entries) // 2]:
            os.unlink(entry.path)


def user_cache() -> Cache:
    """The cache of the user at hand, by the XDG base directory specification."""
    if os.environ.get(DISABLE, "0") not in ("", "0"):
        return Cache(None)
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    base = Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~")) / ".cache"
    return Cache(base / "devbc" if base.is_absolute() else None)


def key(kind: str, *parts: bytes | str) -> str:
    """The name of an entry of some kind for these inputs, in this order."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in (kind, *parts):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return f"{kind}-{digest.hexdigest()}"


@cache
def version(*sources: Path) -> str:
    """A hash of these source files, and of all in these folders: the version of what they compute."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for path in _files(sources):
        data = path.read_bytes()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _files(sources: Iterable[Path]) -> Iterable[Path]:
    for source in sources:
        yield from (
            sorted(each for each in source.iterdir() if each.is_file()) if source.is_dir() else [source]
        )


def _checksum(key: str, content: bytes) -> bytes:
    """Of an entry under its key: an entry that was renamed does not pass for another."""
    return hashlib.blake2b(
        content, digest_size=_DIGEST_BYTES, key=hashlib.sha256(key.encode()).digest()
    ).digest()


def _read(path: Path) -> bytes | None:
    """A private file's bytes; a little more than an entry may have, at most."""
    # Not blocking: what is found there may be a pipe.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as entry:
        if not _private(os.fstat(entry.fileno()), stat.S_IFREG):
            return None
        return entry.read(limits.CACHE_ENTRY_BYTES + 1)


def _private_directory(directory: Path) -> bool:
    try:
        return _private(os.lstat(directory), stat.S_IFDIR)
    except OSError:
        return False


def _private(found: os.stat_result, kind: int) -> bool:
    """Whether a file is of a kind, this user's, and closed to everyone else."""
    ours = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS
    return stat.S_IFMT(found.st_mode) == kind and ours
