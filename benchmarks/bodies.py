"""Invented message bodies: ids of some 50 bytes and full actions of some 1.5 kB; nobody in them exists."""

import json
import random
from typing import Any

DISTINCT = 1120  # bodies of a kind; a whole multiple of every number of batch keys in use
KINDS = ("ids", "action")


def bodies(kind: str, keys: int) -> list[bytes]:
    """Return the bodies of one *kind* in no order, evenly of *keys* pairs of action page and organisation."""
    make = {"ids": ids, "action": action}[kind]
    made = [
        json.dumps(make(number, number % keys), separators=(",", ":"), ensure_ascii=False).encode()
        for number in range(DISTINCT)
    ]
    random.Random(keys).shuffle(made)
    return made


def ids(number: int, key: int) -> dict[str, Any]:
    """Return the ids of an action, as the first generation of the campaign server sends them."""
    return {"actionId": 2_036_000 + number, "actionPageId": 2300 + key, "orgId": 500 + key % 7}


def action(number: int, key: int) -> dict[str, Any]:
    """Return a full action."""
    draw = random.Random(number)
    numbers = ids(number, key)
    organisation, at = numbers["orgId"], "2026-02-19T15:17:29Z"
    return {
        "schema": "proca:action:2",
        "stage": "deliver",
        **numbers,
        "campaignId": 210,
        "action": {
            "actionType": "register",
            "createdAt": at,
            "testing": False,
            "customFields": {
                "emailProvider": "example.org",
                "salutation": "m",
                "comment": "Because the place where I grew up deserves clean water, and so do the people who "
                "will live here after me. Łódź, Zürich, Málaga — we all sign.",
                "variant": draw.choice("AB"),
                "occupation": "teacher",
            },
        },
        "actionPage": {
            "name": f"clean_water/partner_{organisation}/{numbers['actionPageId']}",
            "locale": draw.choice(["de", "pl", "en", "fr"]),
            "thankYouTemplate": "thank_you",
            "thankYouTemplateRef": None,
            "supporterConfirmTemplate": None,
        },
        "campaign": {
            "name": "clean_water",
            "title": "Clean water for all – 2026",
            "externalId": None,
            "contactSchema": "basic",
        },
        "org": {"name": f"partner_{organisation}", "title": "Partner Organisation Österreich"},
        "contact": contact(number, draw),
        "personalInfo": None,
        "privacy": {
            "withConsent": True,
            "optIn": True,
            "givenAt": at,
            "emailStatus": None,
            "emailStatusChanged": None,
        },
        "tracking": {
            "source": "newsletter",
            "medium": "email",
            "campaign": "spring_mailing_03",
            "content": "button_top",
            "location": "https://cleanwater.example.org/pl/podpisz?utm_source=newsletter&utm_medium=email",
        },
    }


def contact(number: int, draw: random.Random) -> dict[str, Any]:
    """Return an invented person."""
    return {
        "contactRef": f"{draw.getrandbits(192):048x}",
        "email": f"supporter+{number}@example.org",
        "firstName": "Mora",
        "lastName": "Testowska",
        "phone": f"+4930{number:07d}",
        "dupeRank": 0,
        "area": "PL",
        "country": "PL",
        "postcode": "00-950",
        "address": {"street": "Long Avenue", "street_number": "12/4", "locality": "Warszawa"},
    }
