"""Files that hold personal data: new ones only, readable by their owner only."""

import os
from pathlib import Path
from typing import BinaryIO

import click


def new_file(path: Path) -> BinaryIO:
    """Create *path* for writing, with mode 0600.

    Raises:
        click.UsageError: it exists already, or cannot be created.
    """
    try:
        return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
    except FileExistsError:
        raise click.UsageError(f"{path} exists already: name a new file") from None
    except OSError as error:
        raise click.UsageError(f"{path} cannot be created: {error.strerror}") from None
