"""Invented signatures as the plumbing publishes them; nobody in them exists, every address is example.org.

Everything is made from a number and a seed: the same two give the same message, in any order and on any
machine, so that a range of numbers can be published here and checked there.
"""

import json
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple


class Page(NamedTuple):
    """An action page: one language and one organisation of the campaign."""

    number: int
    organisation: int
    locale: str
    countries: str
    given: str
    family: str
    streets: str
    comment: str


ORGANISATIONS = {2: ("rivers_first", "Rivers First"), 3: ("sady", "Sady i Łąki"), 5: ("aguas", "Aguas Vivas")}
CAMPAIGN = {"id": 14, "name": "clean_water", "title": "Clean water – for all of us", "externalId": 614}
PAGES = (
    Page(21, 2, "en", "GB IE", "Ada Joan Niamh Owen", "Ashdown Quill O'Larkin", "Mill Lane|Quay Street", ""),
    Page(22, 2, "de", "DE AT", "Jörg Grete Änne Uwe", "Größler Müllersen Tauber", "Am Wehr|Brückenstraße",
         "Für die Flüsse, an denen wir groß geworden sind."),
    Page(23, 2, "fr_BE", "BE FR", "Zoé Loïc Maëlle Hugo", "Lefèvreux Grandpré", "Rue de l'Écluse|Quai Vert",
         "L'eau n'est pas une marchandise."),
    Page(31, 3, "pl", "PL", "Łucja Staś Żaneta Jacek", "Źródlak Wiśniewska-Bór", "ul. Młyńska|ul. Łąkowa",
         "Bo rzeki nie mają głosu — więc my podpisujemy 🌊"),
    Page(32, 3, "cs", "CZ", "Šárka Jiří Anežka", "Potůček Říčná", "Na Březích|Mlýnská", ""),
    Page(51, 5, "es", "ES", "Íñigo Begoña Lucía", "Ribera Peñafuente", "Calle del Río|Paseo de la Acequia",
         "Sin agua limpia no hay pueblo."),
    Page(52, 5, "el", "GR CY", "Ελένη Νίκος", "Ποταμίτης Πηγάδη", "Οδός Πηγής", ""),
)  # fmt: skip
BEGINNING = datetime(2026, 2, 19, 15, 0, tzinfo=UTC)

POISON = (
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe not UTF-8 \xff",
    b'{"schema": "proca:action:2", "actionId": "seven"}',
    b'{"schema": "proca:action:2"}',
    b'{"schema": "proca:action:99", "actionId": 7}',
    b'{"schema": 2}',
    b'{"schema": "proca:action:2", "actionId": NaN}',
    b'{"schema": "proca:action:2"} and more',
    b"[" * 5000 + b"]" * 5000,
)
"""Bodies that can never be read."""


def poison(number: int) -> bytes:
    """Return an unreadable body, another one for each *number* in turn."""
    return POISON[number % len(POISON)]


def action(number: int, seed: int = 0, *, testing: bool = False) -> dict[str, Any]:
    """Return `proca:action:2` with *number* as action id."""
    draw = random.Random(f"{seed}/{number}")
    page = draw.choice(PAGES)
    name, title = ORGANISATIONS[page.organisation]
    at = stamp(number)
    return {
        "schema": "proca:action:2",
        "stage": "deliver",
        "actionId": number,
        "actionPageId": page.number,
        "campaignId": CAMPAIGN["id"],
        "orgId": page.organisation,
        "action": {
            "actionType": draw.choice(["register", "register", "register", "share", "mail2target"]),
            "createdAt": at,
            "testing": testing,
            "customFields": custom_fields(page, draw),
        },
        "actionPage": {
            "name": f"{CAMPAIGN['name']}/{name}/{page.locale}",
            "locale": page.locale,
            "thankYouTemplate": f"thanks_{page.locale}",
            "thankYouTemplateRef": None,
        },
        "campaign": {
            "name": CAMPAIGN["name"],
            "title": CAMPAIGN["title"],
            "externalId": CAMPAIGN["externalId"],
            "contactSchema": "basic",
        },
        "org": {"name": name, "title": title},
        "contact": contact(number, page, draw),
        "personalInfo": None,
        "privacy": privacy(at, draw),
        "tracking": tracking(page, draw),
    }


def ids(number: int, seed: int = 0) -> dict[str, Any]:
    """Return `proca:ids:1` of the action that `action` makes of the same numbers."""
    page = random.Random(f"{seed}/{number}").choice(PAGES)
    return {
        "schema": "proca:ids:1",
        "stage": "deliver",
        "actionId": number,
        "actionPageId": page.number,
        "orgId": page.organisation,
    }


def email_status(number: int, status: str = "double_opt_in", seed: int = 0) -> dict[str, Any]:
    """Return `proca:event:2` that says what became of the address of the supporter of action *number*."""
    signed = action(number, seed)
    at = stamp(number, later=timedelta(hours=1))
    return {
        "schema": "proca:event:2",
        "eventType": "email_status",
        "timestamp": at,
        "orgId": signed["orgId"],
        "actionPageId": signed["actionPageId"],
        "campaignId": signed["campaignId"],
        "supporter": {
            "contact": signed["contact"],
            "privacy": {**signed["privacy"], "emailStatus": status, "emailStatusChanged": at},
            "personalInfo": None,
        },
        "action": signed["action"],
        "actionPage": signed["actionPage"],
        "campaign": signed["campaign"],
    }


def campaign_updated(title: str = "Clean water – now") -> dict[str, Any]:
    """Return `proca:event:2` that says the campaign has another *title*."""
    return {
        "schema": "proca:event:2",
        "eventType": "campaign_updated",
        "timestamp": stamp(0),
        "campaignId": CAMPAIGN["id"],
        "orgId": 2,
        "campaign": {
            **CAMPAIGN,
            "title": title,
            "contactSchema": "basic",
            "config": {},
            "org": {"name": "rivers_first"},
        },
    }


def bodies(numbers: Iterable[int], seed: int = 0) -> Iterator[bytes]:
    """Yield the bodies of the actions with these *numbers*."""
    for number in numbers:
        yield body(action(number, seed))


def body(message: dict[str, Any]) -> bytes:
    """Return *message* as the plumbing writes it: JSON, UTF-8."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def contact(number: int, page: Page, draw: random.Random) -> dict[str, Any]:
    """Return an invented person who lives where *page* is read; some tell less than others."""
    country = draw.choice(page.countries.split())
    person: dict[str, Any] = {
        "contactRef": f"{draw.getrandbits(192):048x}",
        "email": f"supporter+{number}@example.org",
        "firstName": draw.choice(page.given.split()),
        "dupeRank": draw.choice([0, 0, 0, 0, 1]),
        "area": country,
    }
    if draw.random() < 0.8:
        person |= {"lastName": draw.choice(page.family.split()), "country": country}
    if draw.random() < 0.5:
        person |= {"postcode": f"{draw.randrange(100_000):05d}", "locality": "Musterstadt"}
    if draw.random() < 0.3:
        street = draw.choice(page.streets.split("|"))
        person["address"] = {"street": street, "street_number": f"{draw.randrange(1, 90)}/4"}
    if draw.random() < 0.2:
        person["phone"] = None
    return person


def privacy(at: str, draw: random.Random) -> dict[str, Any]:
    """Return what an invented person consented to."""
    opt_in = draw.choice([True, True, False, None])
    double = opt_in is True and draw.random() < 0.5
    return {
        "withConsent": opt_in is not None,
        "optIn": opt_in,
        "givenAt": at,
        "emailStatus": "double_opt_in" if double else None,
        "emailStatusChanged": at if double else None,
    }


def custom_fields(page: Page, draw: random.Random) -> dict[str, Any]:
    """Return answers to the additional questions of *page*, one of every kind of value."""
    fields: dict[str, Any] = {"variant": draw.choice("AB"), "newsletter": draw.random() < 0.5}
    if page.comment and draw.random() < 0.4:
        fields["comment"] = page.comment
    if draw.random() < 0.2:
        fields |= {"topics": ["rivers", "lakes"], "amount": 12.5, "visits": [1, 2, 3]}
    return fields


def tracking(page: Page, draw: random.Random) -> dict[str, str] | None:
    """Return where the person came from, or None: a third is not known."""
    if draw.random() < 1 / 3:
        return None
    source, medium = draw.choice([("newsletter", "email"), ("mastodon", "social"), ("partner", "referral")])
    location = f"https://water.example.org/{page.locale}?utm_source={source}"
    return {"source": source, "medium": medium, "campaign": "spring", "content": "", "location": location}


def stamp(number: int, later: timedelta = timedelta()) -> str:
    """Return when action *number* was made, ISO 8601: one each second."""
    return (BEGINNING + timedelta(seconds=number) + later).strftime("%Y-%m-%dT%H:%M:%SZ")
