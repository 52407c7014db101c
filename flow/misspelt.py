"""Variables that are set and that nothing reads, mostly because their name is misspelt."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping

LIKENESS = 0.7  # of what follows the prefix, to be taken for another name
GREAT_LIKENESS = 0.85  # of whole names, where a prefix is shared with others
SERVICE = re.compile(
    r"(.+)_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:HOST|ADDR|PORT|PROTO))?)?)"
)
"""What Kubernetes sets for each service: CRM_SERVICE_HOST and others for one called crm."""


def unread(prefix: str, known: Collection[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each variable with *prefix* that is set and not among the *known* ones.

    It names the nearest known one, and never a value. What Kubernetes sets by itself is left out.
    """
    for name in _strangers(prefix, known, environment):
        wanted = {one.removeprefix(prefix): one for one in known}
        near = difflib.get_close_matches(name.upper().removeprefix(prefix), sorted(wanted), 1, LIKENESS)
        yield (
            f"{_sentence(name, wanted[near[0]])}"
            if near
            else f"{name} is set but not known: correct its name, or remove it"
        )


def misspelt(prefix: str, known: Collection[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each variable that looks very much like a *known* one which is not set.

    For a *prefix* that others may share, whose variables are not known here.
    """
    unset = sorted(name for name in known if not environment.get(name))
    for name in _strangers(prefix, known, environment):
        if near := difflib.get_close_matches(name.upper(), unset, 1, GREAT_LIKENESS):
            yield _sentence(name, near[0])


def _strangers(prefix: str, known: Collection[str], environment: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environment):
        if name.upper().startswith(prefix) and name not in known and not _of_kubernetes(name, environment):
            yield name


def _of_kubernetes(name: str, environment: Mapping[str, str]) -> bool:
    found = SERVICE.fullmatch(name)
    return found is not None and f"{found[1]}_SERVICE_HOST" in environment


def _sentence(name: str, meant: str) -> str:
    return f"{name} is set but not known (did you mean {meant}?)"
