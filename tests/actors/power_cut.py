"""A disk that loses its power: only what was synced is there afterwards."""

import os
import pathlib
import shutil


class PowerCut(BaseException):
    """The machine goes dark at this point."""


class FragileDisk:
    """Counts the steps that the spool's file operations take, cuts the power at one, and knows what the disk then holds.

        disk = FragileDisk(monkeypatch, directory)
        disk.cut_at = 3                  # None = never
        ...                              # raises PowerCut at the third step, and at every later one
        disk.forget_unsynced(elsewhere)  # the directory as the next boot finds it, at worst

    A file's bytes count from its last fsync, a folder's names from the folder's last fsync, the directory's own name too.
    Bytes never synced are gone.
    """

    def __init__(self, monkeypatch, directory: pathlib.Path):
        self._directory = directory
        self._bytes: dict[int, bytes] = {}
        self._names: dict[pathlib.Path, dict[str, int]] = {}
        self._is_named = directory.exists()
        self.num_steps = 0
        self.cut_at: int | None = None
        for name in ("fsync", "replace", "unlink", "truncate"):
            monkeypatch.setattr(os, name, self._step(name, getattr(os, name)))

    def forget_unsynced(self, target: pathlib.Path) -> None:
        if not self._is_named:
            return
        for folder, names in self._names.items():
            place = target / folder.relative_to(self._directory)
            place.mkdir(parents=True, exist_ok=True)
            for name, inode in names.items():
                if (folder / name).is_dir():
                    continue
                (place / name).write_bytes(self._bytes.get(inode, b""))

    def keep_everything(self, target: pathlib.Path) -> None:
        shutil.copytree(self._directory, target)

    def _step(self, name, real):
        def call(*args, **options):
            self.num_steps += 1
            if self.cut_at is not None and self.num_steps >= self.cut_at:
                raise PowerCut
            result = real(*args, **options)
            if name == "fsync":
                self._note(args[0])
            return result

        return call

    def _note(self, descriptor: int) -> None:
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path == self._directory.parent:
            self._is_named |= self._directory.exists()
        if not path.is_relative_to(self._directory):
            return
        if path.is_dir():
            self._names[path] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self._bytes[os.fstat(descriptor).st_ino] = path.read_bytes()
