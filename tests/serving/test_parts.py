"""The parts of `flow serve` on their own: limits, tokens, texts."""

import pytest

from flow.errors import ConfigError
from flow.serving import limiter
from flow.serving.limiter import AddressLimiter, network_of
from flow.serving.texts import TEXTS, language_of, negotiated
from flow.serving.tokens import ApiTokens
from flow.serving.trusted import proxies, redirect_hosts
from flow.settings import Secret

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:0db8:0000:0000"),
        ("2001:db8::ffff:1", "2001:0db8:0000:0000"),
        ("2001:db8:0:1::1", "2001:0db8:0000:0001"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("testclient", "testclient"),
    ],
)
def test_who_is_counted_together(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_address_gets_its_requests_back_with_time() -> None:
    limits = AddressLimiter(2, 60.0)

    assert [limits.delay("192.0.2.1", 0.0) for _ in range(3)] == [0.0, 0.0, 30.0]
    assert limits.delay("192.0.2.1", 30.0) == 0.0
    assert limits.delay("192.0.2.2", 30.0) == 0.0


def test_quiet_addresses_are_forgotten_and_busy_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "CROWD", 10)
    limits = AddressLimiter(1, 60.0)
    for n in range(9):
        limits.delay(f"192.0.2.{n}", 0.0)
    limits.delay("198.51.100.1", 59.0)
    before = len(limits)

    limits.delay("198.51.100.2", 61.0)

    assert (before, len(limits)) == (10, 2)
    assert limits.delay("198.51.100.1", 61.0) == 58.0


@pytest.mark.parametrize(
    "line", ["acme", "acme short", f"acme {TOKEN} more", f"acme {TOKEN}ł", f" {TOKEN}", f"acme\t{TOKEN}"]
)
def test_a_wrong_line_of_tokens_is_named_by_its_number_and_not_shown(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^line 2 of the API tokens must be") as refused:
        ApiTokens.parse(Secret(f"# tokens\n{line}\n"))

    assert TOKEN not in str(refused.value)


def test_a_token_belongs_to_one_organisation_and_an_organisation_may_have_two() -> None:
    tokens = ApiTokens.parse(Secret(f"acme {TOKEN}\nacme {TOKEN[::-1]}"))

    assert tokens.organisation(f"Bearer {TOKEN}") == tokens.organisation(f"bearer {TOKEN[::-1]}") == "acme"
    assert tokens.organisation(f"Basic {TOKEN}") is None
    assert ApiTokens.parse(None).organisation(f"Bearer {TOKEN}") is None
    with pytest.raises(ConfigError, match="line 2 of the API tokens gives the token of another organisation"):
        ApiTokens.parse(Secret(f"acme {TOKEN}\nother {TOKEN}"))


def test_every_language_says_everything() -> None:
    names = set(TEXTS["en"])

    assert all(set(texts) == names for texts in TEXTS.values())
    for texts in TEXTS.values():
        for name, text in texts.items():
            assert text.format(campaign="c", action=7)
            assert ("{campaign}" in text) == name.endswith(("accept_text", "reject_text"))


@pytest.mark.parametrize(
    ("locale", "language"), [("de_AT", "de"), ("de", "de"), ("FR-fr", "fr"), ("xx", "en"), ("", "en")]
)
def test_a_locale_finds_its_language_or_the_default(locale: str, language: str) -> None:
    assert language_of(locale) == language


@pytest.mark.parametrize(
    ("accepted", "language"), [("xx, fr-CH;q=0.9, de;q=0.8", "fr"), ("", "en"), ("*", "en"), (",,;q", "en")]
)
def test_a_browsers_language_is_heard_where_nothing_else_tells(accepted: str, language: str) -> None:
    assert negotiated(accepted) == language


@pytest.mark.parametrize("name", ["thanks.example.org", "localhost", "xn--bcher-kva.example", "a1-b.Example"])
def test_hosts_are_known_as_they_stand_in_urls(name: str) -> None:
    assert redirect_hosts([name]) == {name.lower()}


@pytest.mark.parametrize(
    "name",
    [
        "https://thanks.example.org",
        "thanks.example.org/page",
        "thanks.example.org:443",
        "bücher.example",
        "a; script-src *",
        "*.example.org",
        "a..b",
        "example.org.",
        "",
        "x" * 64,
    ],
)
def test_what_is_no_host_would_never_be_redirected_to_and_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--redirect-host takes a host alone"):
        redirect_hosts([name])


@pytest.mark.parametrize("address", ["*", "proxy.local", "10.0.0.1/8", "127.0.0.1:80", ""])
def test_a_proxy_that_would_never_be_recognized_or_be_everybody_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--trusted-proxy takes an address or a network"):
        proxies(["127.0.0.1", address])


def test_proxies_are_addresses_and_networks() -> None:
    assert proxies(["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"]) == [
        "127.0.0.1",
        "10.0.0.0/8",
        "::1",
        "fd00::/8",
    ]
