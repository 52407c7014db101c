"""Links and the tokens that sign some of them."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner

from flow.errors import ConfigError
from flow.links import Links, Tokens

SECRET = "a-secret-of-enough-characters-for-it"


def test_a_supporters_link_holds_what_is_needed_and_nothing_that_breaks_it() -> None:
    links = Links("https://confirm.example.org/flow/", SECRET)

    assert links.supporter(7, "accept", "a-b_c") == "https://confirm.example.org/flow/link/s/7/accept/a-b_c"
    assert links.supporter(7, "reject", "a/b?c", doi=True, redirect="https://acme.example.org/?a=b&c") == (
        "https://confirm.example.org/flow/link/s/7/reject/a%2Fb%3Fc"
        "?doi=1&redir=https%3A%2F%2Facme.example.org%2F%3Fa%3Db%26c"
    )


def test_a_moderators_link_is_signed() -> None:
    link = Links("https://confirm.example.org", SECRET).moderator(7, "accept")

    assert link.startswith("https://confirm.example.org/link/a/7/accept/")
    assert Tokens(SECRET).check(7, link.rpartition("/")[2]) == "good"


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.text())
def test_a_token_counts_for_one_action_and_one_secret(one: int, other: int, text: str) -> None:
    tokens = Tokens(SECRET)
    token = tokens.sign(one)

    assert tokens.check(one, token) == "good"
    assert Tokens(SECRET[::-1]).check(one, token) == "wrong"
    assert Tokens(SECRET, valid=-1).check(one, token) == "expired"
    assert tokens.check(other, token) == ("good" if one == other else "wrong")
    assert tokens.check(one, text) == "wrong"


def test_the_first_of_several_secrets_signs_and_what_any_of_them_has_signed_counts() -> None:
    """So a secret is replaced without ending the links that are out."""
    former, new = SECRET, SECRET[::-1]
    both = Tokens(f"{new}\n{former}")

    assert both.check(7, Tokens(former).sign(7)) == "good"
    assert Tokens(new).check(7, both.sign(7)) == "good"
    assert Tokens(former).check(7, both.sign(7)) == "wrong"
    assert both.check(7, Tokens(f"{former}{new}").sign(7)) == "wrong"


@pytest.mark.parametrize(
    ("ahead", "verdict"), [(600, "good"), (0, "good"), (-100, "good"), (-101, "expired")]
)
def test_a_token_counts_for_its_time_also_when_the_clock_that_signed_was_ahead(
    monkeypatch: pytest.MonkeyPatch, ahead: int, verdict: str
) -> None:
    now = 1_800_000_000
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: now + ahead)
    token = Tokens(SECRET).sign(7)
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: now)

    assert Tokens(SECRET, valid=100).check(7, token) == verdict


@pytest.mark.parametrize("base", ["confirm.example.org", "ftp://confirm.example.org", "https://a/?b", ""])
def test_a_wrong_address_is_refused(base: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^the URL of flow serve must begin with https:// and have no query$"
    ):
        Links(base)


def test_a_short_secret_and_a_missing_one_are_refused() -> None:
    for secret in ("short", f"{SECRET} short", " \n"):
        with pytest.raises(ConfigError, match="the secret that signs links must have at least 32 characters"):
            Links("https://confirm.example.org", secret)
    with pytest.raises(ConfigError, match="links for moderators need the secret"):
        Links("https://confirm.example.org").moderator(7, "accept")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)

    with pytest.raises(ConfigError, match=r"install proca-flow\[serve\]"):
        Tokens(SECRET)
