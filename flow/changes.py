"""Tells when the Python files of a folder change, for development."""

import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from flow.errors import ConfigError

log = logging.getLogger("flow")


def changes(folder: Path, files: Sequence[Path]) -> AsyncIterator[str]:
    """Yield a changed file's name each time that Python files under *folder*, or one of *files*, change.

    Raises:
        ConfigError: watchfiles is not installed.
    """
    try:
        import watchfiles
    except ImportError as error:
        raise ConfigError(
            f"--reload needs {error.name}, which is not installed: pip install 'proca-flow[reload]'"
        ) from error
    named = [str(path.resolve()) for path in files]
    outside = [path for path in named if not Path(path).is_relative_to(folder)]

    async def watch() -> AsyncIterator[str]:
        wanted = watchfiles.PythonFilter(extra_extensions=named)
        async for changed in watchfiles.awatch(folder, *outside, watch_filter=wanted):
            yield Path(min(path for _, path in changed)).name

    return watch()
