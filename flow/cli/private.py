"""Files that hold personal data: new ones only, readable by their owner only."""

from pathlib import Path
from typing import BinaryIO

import click

from flow.trial.files import private


def new_file(path: Path, advice: str = "name a new file") -> BinaryIO:
    """Create *path* for writing, with mode 0600; *advice* tells what to do when it is there.

    Raises:
        click.UsageError: it exists already, or cannot be created.
    """
    try:
        return open(path, "xb", opener=private)
    except FileExistsError:
        raise click.UsageError(f"{path} exists already: {advice}") from None
    except OSError as error:
        raise click.UsageError(f"{path} cannot be created: {error.strerror}") from None
