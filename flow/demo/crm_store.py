"""What the demonstration CRM holds, how often it was told, and what it gets wrong on order."""

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec


class Faults(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong, from now on until changed; nothing by default."""

    outage: bool = False
    """Answer 503 and apply nothing."""
    status: int | None = None
    """Answer every call with this status, quoting the call, and apply nothing."""
    failing: int = 0
    """Answer every so-manieth call with 500 and apply nothing; 0: none."""
    limited: str | None = None
    """Answer 429 with this Retry-After and apply nothing."""
    delay: float = 0.0
    """Seconds to wait before doing anything."""
    drip: float = 0.0
    """Seconds between one byte of the answer and the next."""
    silent: bool = False
    """Apply everything and never answer."""
    reset: int = 0
    """So many calls: apply everything, then reset the connection."""
    answer: str | None = None
    """Apply nothing and answer 200 with this text: garbage, or an error in disguise."""
    invalid: dict[str, str] = msgspec.field(default_factory=dict)
    """Items refused for ever, by id, each with its reason."""
    busy: dict[str, int] = msgspec.field(default_factory=dict)
    """Items that cannot be applied yet, by id: how many more times."""
    busy_after: float | None = None
    """Seconds after which the answer asks for a busy item again."""
    missing: dict[str, int] = msgspec.field(default_factory=dict)
    """Items neither applied nor mentioned in the answer, by id: how many more times."""
    stray: list[str] = msgspec.field(default_factory=list)
    """Ids that nobody sent and that the answer mentions as invalid."""
    unknown_campaigns: list[str] = msgspec.field(default_factory=list)
    """Names of campaigns the CRM does not know."""

    def refusal(self, number: int) -> int | None:
        """Return the status with which the call with this *number* is refused, or None."""
        return 500 if self.failing and number and number % self.failing == 0 else self.status

    def result(self, one: str) -> dict[str, Any] | None:
        """Return what is answered for the item with the id *one*, None to leave it out."""
        if one in self.invalid:
            return {"id": one, "status": "invalid", "reason": self.invalid[one]}
        if self.missing.get(one):
            self.missing[one] -= 1
            return None
        if self.busy.get(one):
            self.busy[one] -= 1
            return {"id": one, "status": "busy", "after": self.busy_after}
        return {"id": one, "status": "ok"}


class CrmStore:
    """Items by id, each held once however often it came, and the count of how often it came."""

    def __init__(self, effects: Path | None) -> None:
        """Write each applied item to the file *effects*; what the file holds counts as applied already."""
        self.records: dict[str, dict[str, Any]] = {}
        self.effects: Counter[str] = Counter()
        self.whole = True
        """Whether `records` holds what came, not only its id."""
        self._file: int | None = None
        if effects is not None:
            if effects.exists():
                self._read(effects)
            self._file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def apply(self, items: list[dict[str, Any]]) -> None:
        """Take *items* in; they are on the disk when this returns."""
        for item in items:
            self.records[item["id"]] = item if self.whole else {"id": item["id"]}
            self.effects[item["id"]] += 1
        if self._file is not None and items:
            now = time.time()
            lines = (json.dumps({"id": item["id"], "at": now}) + "\n" for item in items)
            os.write(self._file, "".join(lines).encode())
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)

    def _read(self, effects: Path) -> None:
        for line in effects.read_text().splitlines():
            one = json.loads(line)["id"]
            self.records.setdefault(one, {"id": one})
            self.effects[one] += 1
