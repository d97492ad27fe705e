"""Opening what lies in a lab when anybody may have put it there: plain files alone.

A symbolic link would lead a reader or a writer out of the lab, a pipe would hold either for ever, a
device would feed a reader without end, and a second name (a hard link) would let an append change a
file elsewhere. Every refusal is an OSError whose `strerror` says why: callers explain those as they
explain a full disk. Knows nothing of what is in the files.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def open_plain(path: Path, *, follow: bool = False) -> BufferedReader:
    """Open a plain file for reading. `follow`: a link may lead to it (what a person arranged)."""
    flags = os.O_RDONLY | _NO_WAIT | (0 if follow else _NO_LINK)
    return os.fdopen(_opened(path, flags), "rb")


def read_plain(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """All of a plain file of at most `limit` bytes. Raises OSError, also for a larger one."""
    with open_plain(path, follow=follow) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return data


def open_to_write(path: Path, flags: int) -> int:
    """A descriptor of the plain file at `path`, made with mode 0600 if there is none.

    `flags`: O_WRONLY or O_RDWR, and O_APPEND if wanted. Raises OSError.
    """
    descriptor = _opened(path, flags | os.O_CREAT | _NO_LINK | _NO_WAIT)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise OSError(
            errno.EMLINK, "it has a second name elsewhere (a hard link): copy it", str(path)
        )
    return descriptor


def _opened(path: Path, flags: int) -> int:
    try:
        descriptor = os.open(path, flags, 0o600)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    except OSError:
        if path.is_symlink() and flags & _NO_LINK:
            words = "it is a symbolic link, which is not followed"
            raise OSError(errno.ELOOP, words, str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return descriptor
