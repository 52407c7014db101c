"""A campaign of two organisations: what is submitted and decided, for flow and for the model alike."""

import os
import random
from base64 import urlsafe_b64encode
from typing import Any

import msgspec
from nacl.public import PrivateKey

from tests.plumbing.signature_model import Deed, Model, Org
from tests.plumbing.signatures import definitions

SIZE = int(os.environ.get("FLOW_TEST_SIGNATURES", "500"))


def text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class Campaigning:
    """What is submitted and decided, for flow and for the model alike."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.acme = Org("acme", supporter_confirm=True)
        self.brook = Org(
            "brook",
            campaign_supporter_confirm=True,
            action_confirm=True,
            custom_supporter=True,
            custom_delivery=True,
            encrypted=True,
        )
        self.orgs = [self.acme, self.brook]
        self.private = PrivateKey.generate()
        self.public = text(bytes(self.private.public_key))
        self.model = Model()

    def lines(self) -> list[bytes]:
        """Return what `flow submit` reads; the model learns of it at once."""
        found = []
        for org in self.orgs:
            for definition in definitions(org, self.public):
                line = msgspec.to_builtins(definition)
                kind = type(definition).__name__
                found.append({"type": kind[0].lower() + kind[1:]} | line)
        for number in range(SIZE):
            found.append(self._line(number))
        return [msgspec.json.encode(line) for line in found]

    def _line(self, number: int) -> dict[str, Any]:
        chance = self.random.random
        org = self.random.choice(self.orgs)
        testing = chance() < 0.05
        line: dict[str, Any] = {
            "actionPage": f"rivers/{org.name}",
            "submission": f"form-{number}",
            "testing": testing,
            "customFields": {"number": number},
        }
        if chance() < 0.05:  # without a supporter
            self.model.add(org, None, testing)
            return line | {"actionType": "share"}
        of_org = [one for one in self.model.people if one.org is org]
        email = f"n{number}@example.org"
        if chance() < 0.15 and of_org:  # a duplicate
            email = self.random.choice(of_org).email
        self.model.sign(org, email, testing)
        line["contact"] = {"email": email, "firstName": "Ada", "lastName": f"Waters {number}"}
        line["privacy"] = {"withConsent": True, "optIn": chance() < 0.5}
        return line

    def decisions(self) -> list[tuple[str, Deed, Any]]:
        """Half of the supporters confirm, a tenth reject; then people moderate; some do it twice."""
        found: list[tuple[str, Deed, Any]] = []
        for deed in self.model.deeds:
            if deed.person is None:
                continue
            chance = self.random.random()
            if chance < 0.5:
                found.append(("accept_person", deed, self.random.random() < 0.3))
            elif chance < 0.6:
                found.append(("reject_person", deed, None))
        found += self.random.sample(found, len(found) // 10)
        self.random.shuffle(found)
        moderated = [
            ("accept_deed" if self.random.random() < 0.7 else "reject_deed", deed, None)
            for deed in self.model.deeds
            if deed.org is self.brook and deed.person and self.random.random() < 0.8
        ]
        bounced = [("email", deed, "bounce") for deed in self.random.sample(self.model.deeds, SIZE // 20)]
        return [*found, *moderated, *bounced]

    def decide(self, what: str, deed: Deed, how: Any) -> str:
        arguments = () if how is None else (how,)
        return str(getattr(self.model, what)(deed, *arguments))
