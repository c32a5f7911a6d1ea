"""Whether other users could change a file or folder. What is read from the cache is run, so it must be this user's or root's.

Modes and owners are POSIX's. On Windows nothing is checked: the default folders are in the user's profile, which is private.
"""

import errno
import os
import stat
from functools import cache
from pathlib import Path

try:
    import grp
    import pwd
except ImportError:  # Windows
    grp = pwd = None

POSIX = pwd is not None
MOST_LINKS = 40  # as in Linux


class UntrustedError(PermissionError):
    """Another user could change what is in a folder, or to which folder a path leads."""


def resolve(folder, own=False):
    """The path of ``folder`` without symbolic links, all of whose existing parts are trusted.

    Every folder and link on the way must belong to root or to this user, and may be writable by others only with the sticky
    bit, which keeps them from replacing what is not theirs. With ``own``, the last folder must not be writable by others at
    all. Parts that do not exist yet are left as they are. Raises OSError; UntrustedError names the part and what is wrong.
    """
    if not POSIX:
        return Path(os.path.realpath(folder))
    here, ahead, links = Path(), list(reversed(Path(folder).absolute().parts)), 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            here = here.parent
            continue
        try:
            status = os.lstat(here / part)
        except FileNotFoundError:
            return here.joinpath(part, *reversed(ahead))
        _check_part(here / part, status, own and not ahead)
        if not stat.S_ISLNK(status.st_mode):
            here = here / part
            continue
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        ahead += reversed(Path(os.readlink(here / part)).parts)
    return here


def _check_part(path, status, own):
    """Raise UntrustedError if others could replace what is in a folder, or a link; OSError if it is neither."""
    link = stat.S_ISLNK(status.st_mode)
    if not link and not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    sticky = status.st_mode & stat.S_ISVTX and not own
    found = stranger(status, () if own else _system_owner()) or (
        None if link or sticky else other_writers(path, status)
    )
    if found:
        raise UntrustedError(errno.EPERM, f"{path} {found}")


def _system_owner():
    """The owner of ``/``, who could change anything. In a user namespace that is not 0 but a placeholder."""
    return (os.stat("/").st_uid,)


def stranger(status, trusted=()):
    """``belongs to …``, if the owner is neither this user nor root nor one of ``trusted``; else None. status: a stat result."""
    if not POSIX or status.st_uid in (0, os.geteuid(), *trusted):
        return None
    return f"belongs to {_user_name(status.st_uid) or f'user {status.st_uid}'}"


def other_writers(path, status):
    """``can be written to by …``, if by users other than its owner and root; else None. path: a path or a descriptor."""
    if not POSIX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return "can be written to by everybody"
    if status.st_mode & stat.S_IWGRP and (not _is_private(status.st_gid) or _has_acl(path)):
        return f"can be written to by group {_group(status.st_gid)[0]}"
    return None


def _user_name(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _group(gid):
    """The name and the members of a group."""
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return str(gid), []
    return group.gr_name, group.gr_mem


@cache
def _is_private(gid):
    """Whether nobody else is in the group: many systems give every user a group of the user's name, and umask 002."""
    name, members = _group(gid)
    user = _user_name(os.geteuid())
    return (gid == 0 or name == user) and set(members) <= {user, "root"}


def _has_acl(path):
    """Whether an access control list may let others write; the group's bits then stand for all of its entries."""
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except (AttributeError, OSError):  # not Linux, or a file system without them
        return False
