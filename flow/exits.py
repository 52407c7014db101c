"""The exit codes of `flow`, which service managers and scripts act on."""

DRAINED = 0
"""Stopped as asked, with everything settled or given back; a command did what it should."""
FAILED = 1
"""Ended without being asked; a command did not do all of it."""
USAGE = 2
"""The command line is wrong."""
HUNG = 3
"""Stopped as asked, but callbacks or a worker had to be ended."""
CONFIGURATION = 78
"""The set-up is wrong: trying again helps only after somebody has changed something."""
