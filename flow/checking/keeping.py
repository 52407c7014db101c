"""What outlives the process: the database, and the folder for its state; looked at, and never written."""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flow.checking.finding import Finding, Tell, caution, ok, unchecked, wrong
from flow.errors import ConfigError, DatabaseDown, DatabaseError
from flow.records.looking import look
from flow.records.url import VARIABLE, DatabaseUrl

STATE_DIR = "FLOW_STATE_DIR"
PATIENCE = 10.0  # seconds for the database to answer
UNKNOWN = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
"""How file systems answer that know no files without a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What outlives the process."""

    database: Literal["none", "kept", "passing", "unknown"] = "none"
    """Passing: it is gone with the process. Unknown: one is named that cannot be used, or not yet."""
    folder: Literal["none", "kept", "unknown"] = "none"
    """For notes of what was started; it is not used where there is a database."""


async def check_keeping(environment: Mapping[str, str], tell: Tell) -> Keeping:
    """Look at the database and the folder that *environment* names, as `flow run` would take them."""
    try:
        url = DatabaseUrl.from_environment(environment)
        if url is not None:
            finding = await check_database(url)
            tell(finding)
            usable = finding.state == "ok"
            return Keeping(database="kept" if usable else "passing" if url.text == "sqlite://" else "unknown")
    except ConfigError as error:
        tell(wrong(str(error)))
        return Keeping(database="unknown")
    path = environment.get(STATE_DIR)
    if not path:
        return Keeping()
    finding = folder(Path(path))
    tell(finding)
    return Keeping(folder="kept" if finding.state == "ok" else "unknown")


async def check_database(url: DatabaseUrl) -> Finding:
    """Check that the database of *url* answers and has the tables of this version.

    Raises:
        ConfigError: a library is missing, or the URL cannot be read by the driver.
    """
    if url.kind == "sqlite" and url.path is None:
        return caution(f"{url.place} is gone with the process: name a file in {VARIABLE}")
    if url.path is not None and (reason := unusable(url.path)):
        return wrong(f"the database {url.path} cannot be opened: {reason}")
    try:
        found = await look(url, patience=PATIENCE)
    except DatabaseDown as error:
        return wrong(f"{error}; flow run waits for it")
    except DatabaseError as error:
        return wrong(f"The database cannot be used: {error}")
    if found is None or (found.empty and url.path is not None):
        return ok(f"{url.place} gets its tables at the first start")
    if not found.current:
        return wrong(f"{url.place} {found.sentence}")
    return ok(f"{url.place} has the tables of this version")


def unusable(path: Path) -> str | None:
    """Return why the file *path* cannot be written, or made, as far as its permissions tell."""
    try:
        if path.is_dir():
            return os.strerror(errno.EISDIR)
        if not path.parent.is_dir():
            return os.strerror(errno.ENOTDIR if path.parent.exists() else errno.ENOENT)
        places = [path, path.parent] if path.exists() else [path.parent]
    except OSError as error:  # a folder above it is closed to us
        return error.strerror
    return None if all(os.access(one, os.R_OK | os.W_OK) for one in places) else os.strerror(errno.EACCES)


def folder(path: Path) -> Finding:
    """Check that files can be written to the folder *path*, or that it can be made.

    A file without a name is opened, which nobody sees and which leaves nothing behind.
    """
    try:
        there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        os.close(os.open(there, os.O_TMPFILE | os.O_RDWR, 0o600))
    except AttributeError:  # O_TMPFILE is Linux's
        return unchecked(f"whether the folder {path} can be written: it cannot be tried without a trace")
    except OSError as error:
        if error.errno in UNKNOWN:
            return unchecked(f"whether the folder {path} can be written: it cannot be tried without a trace")
        return wrong(f"the folder {path} cannot be written: {error.strerror}")
    return ok(f"the folder {path} can be written")
