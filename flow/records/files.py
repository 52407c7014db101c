"""Writing small files so that they are there, whole, after a crash."""

import os
from pathlib import Path

from flow.errors import ConfigError


def write_durably(path: Path, content: bytes) -> None:
    """Write *content* to *path*, for its owner's eyes only, and return once the disk has it.

    A reader sees all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def usable_folder(path: Path, name: str) -> Path:
    """Make the folder *path* if there is none, see that files can be written there, and return it.

    Raises:
        ConfigError: they cannot; the sentence calls the folder by *name*.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{name} {path} cannot be written: {error.strerror}") from error
    return path


def private_file(path: Path, name: str) -> None:
    """Make an empty file at *path*, for its owner's eyes only, if there is none.

    Raises:
        ConfigError: it cannot be made; the sentence calls the file by *name*.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(f"{name} {path} cannot be opened: {error.strerror}") from error
