"""What templates get of an action: amounts as people write them, and nothing of the payment provider."""

from decimal import Decimal

import pytest

from flow.schema import Donation
from flow.targets.variables import given


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("1250", "EUR", "12.50"),
        ("1250", "eur ", "12.50"),
        ("1250", None, "12.50"),
        ("5", "USD", "0.05"),
        ("0", "EUR", "0.00"),
        ("500", "JPY", "500"),
        ("1500", "KWD", "1.500"),
        ("1250.5", "EUR", "12.50"),
        ("-1250", "EUR", "-12.50"),
        ("123456789012", "EUR", "1234567890.12"),
    ],
)
def test_amounts_are_in_units_of_their_currency(amount: str, currency: str | None, shown: str) -> None:
    assert str(given(Donation(amount=Decimal(amount), currency=currency))["amount"]) == shown


@pytest.mark.parametrize("amount", [None, "NaN", "Infinity", "1e400", "1e-400"])
def test_what_is_no_amount_is_none(amount: str | None) -> None:
    assert given(Donation(amount=None if amount is None else Decimal(amount)))["amount"] is None


def test_what_the_payment_provider_said_stays_outside() -> None:
    found = given(Donation(amount=Decimal(1), payload={"iban": "canary"}, frequency_unit="monthly"))

    assert found == {"amount": Decimal("0.01"), "currency": "", "frequency_unit": "monthly"}
