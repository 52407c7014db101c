"""What every template of a mail gets: the supporter, what they did, and where."""

from decimal import Decimal
from typing import Any

from flow.records.mailing import Recipient
from flow.schema import Donation
from flow.targets.addresses import name_of_person

# How many digits follow the point of an amount; 2 for every other currency (ISO 4217).
DIGITS = dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0)
DIGITS |= dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


def shown(to: Recipient) -> dict[str, Any]:
    """Return the variables that every template gets."""
    return {
        "first_name": name_of_person(to.first_name),
        "email": to.email or "",
        "action_id": to.action_id,
        "action_type": to.action_type,
        "created_at": to.created_at,
        "testing": to.testing,
        "custom_fields": to.custom_fields,
        "donation": None if to.donation is None else given(to.donation),
        "page": {"name": to.page, "locale": to.locale},
        "campaign": {"name": to.campaign, "title": to.campaign_title},
        "org": {"name": to.org, "title": to.org_title},
        "unsubscribe_link": "",
    }


def given(donation: Donation) -> dict[str, Any]:
    """Return a donation for people, without what the payment provider said."""
    currency = (donation.currency or "").strip().upper()
    return {
        "amount": None if donation.amount is None else in_units(donation.amount, currency),
        "currency": currency,
        "frequency_unit": donation.frequency_unit or "",
    }


def in_units(amount: Decimal, currency: str) -> Decimal | None:
    """Return an *amount* of cents as people write it: 1250 EUR are 12.50; None: it is no amount."""
    digits = DIGITS.get(currency, 2)
    if not amount.is_finite() or abs(amount.adjusted()) > 20:
        return None
    return amount.scaleb(-digits).quantize(Decimal(1).scaleb(-digits))
