"""How many examples hypothesis makes."""

from hypothesis import settings

USUAL = 100
QUICK = 10


def examples(number: int) -> int:
    """Return *number*, or a tenth of it with --quick."""
    return max(1, number * settings().max_examples // USUAL)
