"""By what a message is recognized in the calls that its target gets: values that no other message has."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

import msgspec

SHORTEST = 4
"""Characters of a value that can tell messages apart; shorter ones stand anywhere."""
SHORTEST_PART = 6
"""The same for a part of a value, as 7000012 is of action-7000012."""
PART = re.compile(r"[^\W_]+")
WORD = re.compile(r"[\w.+@-]+")
FORM = "application/x-www-form-urlencoded"


class Marks:
    """The values that tell the messages of one run apart."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        """Find in each of *bodies* the values that no other has; the digest of a body is one as well."""
        owners: dict[str, set[int]] = {}
        for number, body in enumerate(bodies):
            digest = hashlib.sha256(body).hexdigest()
            for value in {digest, *(one for one in values(body) or () if len(one) >= SHORTEST)}:
                owners.setdefault(value, set()).add(number)
        self._owner = {value: next(iter(found)) for value, found in owners.items() if len(found) == 1}
        marked = set(self._owner.values())
        self.unmarked = [number for number in range(len(bodies)) if number not in marked]
        """Messages that nothing tells from others: the same body twice."""

    def found(self, target: str, headers: Mapping[str, str], body: bytes) -> set[int]:
        """Return the messages of which a call speaks: in its *target* (path and query), headers or body."""
        read = values(body)
        texts = [*headers.values(), *of_form(headers, body), *(words(body) if read is None else read)]
        split = urlsplit(target)
        texts += [split.path, *(value for _, value in parse_qsl(split.query))]
        numbers = set()
        for text in texts:
            for value in (text, *(part for part in PART.findall(text) if len(part) >= SHORTEST_PART)):
                if value in self._owner:
                    numbers.add(self._owner[value])
        return numbers


def of_form(headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    """Yield the values of a form."""
    if headers.get("content-type", "").startswith(FORM):
        yield from (value for _, value in parse_qsl(body.decode(errors="replace")))


def words(body: bytes) -> list[str]:
    """Return the words of a *body* that is no JSON."""
    return WORD.findall(body.decode(errors="replace"))


def values(body: bytes) -> list[str] | None:
    """Return the texts and whole numbers in the JSON *body*; None if it is none."""
    try:
        waiting = [msgspec.json.decode(body)]
    except (ValueError, RecursionError):
        return None
    found = []
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool)):
            found.append(str(one))
    return found
