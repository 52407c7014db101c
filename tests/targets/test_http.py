"""A target that speaks JSON over HTTP; how it answers is shown in tests/pipelines with a whole CRM."""

import asyncio
import logging
import ssl
import sys
from datetime import UTC, datetime

import pytest
import trustme

from flow.demo.crm_server import CrmServer
from flow.demo.crm_store import Faults
from flow.errors import ConfigError
from flow.outcome import Retry, Unavailable
from flow.settings import Secret
from flow.targets.http import LARGEST, HttpTarget, seconds
from tests.nodes.rabbitmq_node import Certificate
from tests.targets.receiver import receiving

pytestmark = pytest.mark.anyio

LONG = '"' + LARGEST * "x" + '"'


@pytest.mark.parametrize(
    "url", ["", "crm.example.org/api", "ftp://crm.example.org", "https://", "http://[::1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^the URL of the CRM must begin with https:// or http:// and a host$"
    ):
        HttpTarget("the CRM", url)


@pytest.mark.parametrize(
    "url", ["https://me:canary@example.org", "https://me@example.org", "https://x.org/?key=canary"]
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        HttpTarget("the CRM", url)

    assert str(refused.value) == (
        "the URL of the CRM must hold no user, password or query; a token has its own setting"
    )


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://crm.example.org", True), ("https://crm.example.org", False), ("http://127.0.0.1:8000", False)],
)
def test_a_token_that_travels_unencrypted_is_warned_of(
    url: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    HttpTarget("the CRM", url, Secret("canary"))

    assert ("the token for the CRM travels unencrypted" in caplog.text) == warned
    assert "canary" not in caplog.text


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)  # as if it were not installed

    with pytest.raises(ConfigError, match=r"^httpx2 is needed to call the CRM: install proca-flow\[http\]$"):
        HttpTarget("the CRM", "https://crm.example.org")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("3601", 3600.0),
        ("9" * 400, 3600.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2026", 30.0),
        ("Wed, 21 Oct 2026 09:29:00 +0200", 60.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Thu, 21 Oct 2027 07:28:00 GMT", 3600.0),
        ("Wed, 32 Oct 2026 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_an_hour_at_most(text: str, wanted: float | None) -> None:
    assert seconds(text, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == wanted


async def test_an_answer_without_end_is_given_up() -> None:
    async with CrmServer() as crm, HttpTarget("the CRM", crm.url, Secret(crm.token)) as target:
        crm.faults = Faults(answer=LONG)
        with pytest.raises(Retry, match=r"^the CRM answered more than 16 MiB$"):
            await target.call("POST", "contacts", str, body=[])


async def test_a_listener_that_never_speaks_tls_is_unavailable() -> None:
    """Nothing was sent, so no attempt is spent."""
    accepted: list[asyncio.StreamWriter] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with HttpTarget("the CRM", f"https://localhost:{port}", timeout=0.6) as target:
            with pytest.raises(Unavailable, match=r"^the CRM cannot be reached: ConnectTimeout$"):
                await target.call("GET", "contacts", str)
        for writer in accepted:
            await writer.wait_closed()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        receiver.says(200, content=b'"seen"')
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with HttpTarget("the CRM", f"http://127.0.0.1:{receiver.port}") as target:
            assert await target.call("GET", "", str) == "seen"

        assert proxy.posts == []


async def test_a_certificate_that_does_not_verify_lets_nothing_through() -> None:
    received = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received += await reader.read()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with HttpTarget("the CRM", f"https://localhost:{port}", Secret("canary")) as target:
            with pytest.raises(Unavailable, match=r"^the CRM cannot be reached: .*certificate"):
                await target.call("POST", "contacts", str, body=[])

    assert received == b""


@pytest.mark.parametrize("known", [True, False])
async def test_an_authority_of_ones_own_is_trusted_instead_of_the_machines(
    hooks_certificate: Certificate, known: bool
) -> None:
    async with receiving(hooks_certificate) as receiver:
        receiver.says(200, content=b'"seen"')
        for host in ("localhost", "127.0.0.1"):  # the certificate is for the first of them only
            url = f"https://{host}:{receiver.port}"
            cafile = str(hooks_certificate.authority) if known else None
            async with HttpTarget("the CRM", url, Secret("canary"), cafile=cafile) as target:
                if known and host == "localhost":
                    assert await target.call("GET", "", str) == "seen"
                    continue
                with pytest.raises(Unavailable, match=r"^the CRM cannot be reached: .*certificate"):
                    await target.call("GET", "", str)

    assert len(receiver.posts) == known


@pytest.mark.parametrize(
    ("cafile", "why"), [("/missing.pem", "No such file or directory"), (__file__, "no certificate is in it")]
)
def test_a_file_of_authorities_that_is_none_is_refused(cafile: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        HttpTarget("the CRM", "https://crm.example.org", cafile=cafile)

    assert str(refused.value) == f"the file of authorities for the CRM cannot be read ({why})"
