"""Files that survive a power cut: each step is on the disk before the next one begins."""

import errno
import os
import pathlib

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: OSError) -> bool:
    """Whether this says that there is no room, as opposed to a disk that is broken or read-only."""
    return error.errno in _NO_SPACE


def write_durably(target: pathlib.Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all, and survives a power cut once this returns.

    Raises OSError; if the disk is full, what was written of the file is removed again.
    """
    temporary = target.with_name(target.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if is_disk_full(error):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def make_directory_durably(directory: pathlib.Path) -> None:
    """Makes a folder with its parents; one that is there already is fine."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):  # else a power cut may take a new folder with all that was synced inside
        sync_directory(folder.parent)


def remove_durably(path: pathlib.Path) -> None:
    """Removes a file; one that is gone already is fine."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def move_durably(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a file, maybe into another folder of the same disk."""
    os.replace(source, target)
    for directory in {source.parent, target.parent}:
        sync_directory(directory)


def sync_directory(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
