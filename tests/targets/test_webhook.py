"""A target that sends signed POSTs, against a real receiver; which addresses it calls is in test_pinned."""

import logging
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response, StreamingResponse

from flow.errors import ConfigError
from flow.outcome import Reject, Retry, Unavailable, Verdict
from flow.settings import Secret
from flow.targets.webhook import READ, WebhookTarget, signatures, verify
from tests.targets.receiver import Receiver, receiving

OLD, NEW = "canary-of-the-old-secret", "canary-of-the-new-secret"
BODY = b'{"contact": {"email": "canary@example.org"}}'


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@asynccontextmanager
async def calling(receiver: Receiver, **options: Any) -> AsyncIterator[WebhookTarget]:
    """Open a target for *receiver*, without TLS."""
    url = f"http://127.0.0.1:{receiver.port}/in"
    options = {"port": receiver.port, "allow_private": True, **options}
    async with WebhookTarget("the hook", url, Secret(f"{OLD}\n{NEW}"), **options) as target:
        yield target


async def told(receiver: Receiver, **options: Any) -> Verdict | None:
    """Return what becomes of one message; None: delivered."""
    async with calling(receiver, **options) as target:
        try:
            await target.send("a", BODY)
        except Verdict as verdict:
            return verdict
    return None


@pytest.mark.anyio
async def test_each_secret_signs_the_body_as_it_arrives(receiver: Receiver) -> None:
    before = int(time.time())
    async with calling(receiver) as target:
        await target.send("some-id", BODY)

    [post] = receiver.posts
    assert post.body == BODY
    assert post.path == "/in"
    assert post.headers["content-type"] == "application/json"
    assert post.headers["flow-id"] == "some-id"
    assert before <= int(post.headers["flow-timestamp"]) <= time.time()
    assert verify(OLD, post.headers, post.body)
    assert verify([NEW], post.headers, post.body)
    assert verify(["a secret of somebody else", NEW], post.headers, post.body)
    assert not verify("a secret of somebody else", post.headers, post.body)


@pytest.mark.anyio
async def test_a_message_keeps_its_id_and_gets_a_new_timestamp_at_every_attempt(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.says(500)
    async with calling(receiver) as target:
        for moment in (1000.0, 9000.0):
            monkeypatch.setattr(time, "time", lambda now=moment: now)
            with pytest.raises(Retry):
                await target.send("same", BODY)

    first, second = receiver.posts
    assert (first.headers["flow-timestamp"], second.headers["flow-timestamp"]) == ("1000", "9000")
    assert first.headers["flow-id"] == second.headers["flow-id"]
    assert verify(NEW, first.headers, BODY, 1000.0)
    assert not verify(NEW, first.headers, BODY, 9000.0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (200, None, ""),
        (204, None, ""),
        (299, None, ""),
        (301, Unavailable, "the hook answered 301: is the address right?"),
        (400, Retry, "the hook answered 400"),
        (401, Unavailable, "the hook refuses the signature (401)"),
        (403, Unavailable, "the hook refuses the signature (403)"),
        (404, Unavailable, "the hook answered 404: is the address right?"),
        (405, Unavailable, "the hook answered 405: is the address right?"),
        (408, Retry, "the hook answered 408"),
        (409, Retry, "the hook answered 409"),
        (410, Unavailable, "the hook answered 410: it is gone for good, so change the address or stop "
                           "this pipeline"),
        (413, Reject, "the hook answered 413"),
        (418, Retry, "the hook answered 418"),
        (422, Reject, "the hook answered 422"),
        (429, Unavailable, "the hook answered 429"),
        (500, Retry, "the hook answered 500"),
        (502, Retry, "the hook answered 502"),
        (503, Unavailable, "the hook answered 503"),
    ],
)  # fmt: skip
async def test_what_a_status_means(
    receiver: Receiver, status: int, kind: type[Verdict] | None, reason: str
) -> None:
    receiver.says(status)

    verdict = await told(receiver)

    assert (type(verdict) if verdict else None) is kind
    assert (verdict.reason if verdict else "") == reason


@pytest.mark.anyio
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed_as_seconds_and_as_a_date(receiver: Receiver, status: int) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    waits: list[float | None] = []
    for said in ("17", soon, "nonsense", "99999999"):
        receiver.says(status, {"Retry-After": said})

        verdict = await told(receiver)

        assert isinstance(verdict, Unavailable)
        waits.append(verdict.after)
    assert waits[0] == 17.0
    assert waits[1] is not None
    assert 500 < waits[1] <= 600
    assert waits[2:] == [None, 3600.0]


@pytest.mark.anyio
async def test_a_redirection_is_not_followed(receiver: Receiver) -> None:
    async with receiving() as elsewhere:
        for status in (301, 302, 307, 308):
            receiver.says(status, {"Location": f"http://127.0.0.1:{elsewhere.port}/"})
            assert isinstance(await told(receiver), Unavailable)

        assert elsewhere.posts == []


@pytest.mark.anyio
async def test_nothing_of_the_environment_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with receiving() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")

        assert await told(receiver) is None
        assert proxy.posts == []
    assert "authorization" not in receiver.posts[0].headers


@pytest.mark.anyio
async def test_cookies_are_not_kept(receiver: Receiver) -> None:
    receiver.says(200, {"Set-Cookie": "canary=1; Path=/"})
    async with calling(receiver) as target:
        await target.send("a", BODY)
        await target.send("b", BODY)

    assert [post.headers.get("cookie") for post in receiver.posts] == [None, None]


def dripping(first: bytes, *, status: int) -> Any:
    async def parts() -> AsyncIterator[bytes]:
        yield first
        while True:
            await anyio.sleep(0.02)
            yield b"x"

    return StreamingResponse(parts(), status)


class Silence:
    """Takes a request and never answers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.mark.anyio
async def test_an_answer_that_does_not_begin_in_time_is_retried(receiver: Receiver) -> None:
    receiver.answer = Silence

    with anyio.fail_after(30):
        verdict = await told(receiver, timeout=0.3)

    assert isinstance(verdict, Retry)
    assert verdict.reason == "the call to the hook broke off (TimeoutError)"


@pytest.mark.anyio
@pytest.mark.parametrize("timeout", [0.3, 10.0])
@pytest.mark.parametrize("status", [200, 500])
async def test_the_status_counts_and_an_answer_without_end_is_cut_off(
    receiver: Receiver, status: int, timeout: float
) -> None:
    """Also when the time for the call ends while the rest of the answer drips."""
    receiver.answer = lambda: dripping(b"", status=status)

    with anyio.fail_after(30):
        verdict = await told(receiver, timeout=timeout)

    assert (type(verdict) if verdict else None) is (None if status == 200 else Retry)


@pytest.mark.anyio
async def test_a_giant_answer_is_not_read(receiver: Receiver) -> None:
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1 << 20
            yield bytes(1 << 20)

    receiver.answer = lambda: StreamingResponse(parts(), 200)

    with anyio.fail_after(30):
        assert await told(receiver) is None

    assert sent < 100 << 20


@pytest.mark.anyio
async def test_the_connection_of_a_short_answer_is_used_again(receiver: Receiver) -> None:
    ports: list[int] = []

    class Answer(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            ports.append(scope["client"][1])
            await super().__call__(scope, receive, send)

    async with calling(receiver) as target:
        for size in (0, READ, READ + 1, 0):
            receiver.answer = lambda size=size: Answer(bytes(size), 200)
            await target.send("a", BODY)

    assert len(set(ports[:3])) == 1
    assert ports[3] != ports[2]


@pytest.mark.anyio
async def test_a_receiver_that_is_not_there_is_unavailable() -> None:
    async with receiving() as receiver:
        gone = receiver
    verdict = await told(gone)

    assert isinstance(verdict, Unavailable)
    assert verdict.reason.startswith("the hook cannot be reached: ")


@pytest.mark.parametrize(
    ("url", "options", "sentence"),
    [
        ("http://hooks.example.org/", {}, "the URL of the hook must begin with https://"),
        ("hooks.example.org", {}, "the URL of the hook must begin with https:// or http:// and a host"),
        ("https://me:canary@hooks.example.org/", {}, "the URL of the hook must hold no user, password or"),
        ("https://hooks.example.org:22/", {}, "the port in the URL of the hook must be 443, 8443 or the one"),
        ("http://hooks.example.org/", {"allow_private": True}, "the port in the URL of the hook must be 443"),
        (
            "https://hooks.example.org/",
            {"timeout": 0.0},
            "the timeout of the hook must be a number of seconds",
        ),
        (
            "https://hooks.example.org/",
            {"secrets": Secret("")},
            "each secret of the hook must have at least 16",
        ),
        ("https://hooks.example.org/", {"secrets": Secret(f"{NEW} short")}, "each secret of the hook must"),
        (
            "https://hooks.example.org/",
            {"cafile": "/missing.pem"},
            "the file of authorities for the hook cannot",
        ),
        ("https://hooks.example.org/", {"cafile": __file__}, "the file of authorities for the hook cannot"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(url: str, options: dict[str, Any], sentence: str) -> None:
    given = {"secrets": Secret(NEW), **options}

    with pytest.raises(ConfigError) as refused:
        WebhookTarget("the hook", url, **given)

    assert str(refused.value).startswith(sentence)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://h.example.org/", "https://h.example.org:8443/", "https://h.example:9/"]
)
def test_known_ports_and_one_that_is_named_may_be_called(url: str) -> None:
    WebhookTarget("the hook", url, Secret(NEW), port=9)


@pytest.mark.anyio
async def test_plain_http_reaches_private_addresses_only() -> None:
    async def public(host: str, port: int) -> list[str]:
        return ["8.8.8.8"]

    target = WebhookTarget(
        "the hook", "http://h.example:9/", Secret(NEW), port=9, allow_private=True, resolve=public
    )
    with pytest.raises(ConfigError, match=r"^the URL of the hook must begin with https://$"):
        await target.__aenter__()


@pytest.mark.anyio
async def test_secrets_and_people_are_named_nowhere(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    async with calling(receiver, timeout=0.3) as target:
        for answer in (
            lambda: Response(BODY, 401),
            lambda: Response(BODY, 422),
            lambda: Response(BODY, 503),
            Silence,
        ):
            receiver.answer = answer
            with pytest.raises(Verdict) as caught:
                await target.send("a", BODY)
            said += traceback.format_exception(caught.value)
        said += [repr(target), repr(vars(target))]

    assert "refuses the signature" in "".join(said)
    assert "canary" not in caplog.text + "".join(said)


def signed(secret: str, body: bytes, *, name: str = "an-id", at: str = "1000") -> dict[str, str]:
    [signature] = signatures([secret], name, at, body)
    return {"Flow-Id": name, "Flow-Timestamp": at, "Flow-Signature": signature}


def test_the_signature_is_what_the_documents_say() -> None:
    """Computed once by `printf 'an-id.1000.{}' | openssl dgst -sha256 -hmac canary-of-the-new-secret`."""
    wanted = "v1=68d71a40f40c873dae2c2aab3cbff8ae785a798208a51df2920456d25ad3fa23"

    assert list(signatures([NEW], "an-id", "1000", b"{}")) == [wanted]


@given(body=st.binary(max_size=200), secret=st.text(min_size=1, max_size=40), late=st.integers(-300, 300))
def test_what_was_signed_is_verified(body: bytes, secret: str, late: int) -> None:
    if secret.isprintable():
        assert verify(secret, signed(secret, body), body, 1000.0 + late)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_body_that_was_tampered_with_is_refused(place: int, bit: int) -> None:
    body = bytearray(BODY)
    body[place % len(body)] ^= 1 << bit

    assert not verify(NEW, signed(NEW, BODY), bytes(body), 1000.0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Flow-Id": "another"},
        {"Flow-Id": ""},
        {"Flow-Timestamp": "1001"},
        {"Flow-Timestamp": ""},
        {"Flow-Timestamp": "-1000"},
        {"Flow-Timestamp": "9" * 5000},
        {"Flow-Timestamp": "١٠٠٠"},
        {"Flow-Signature": ""},
        {"Flow-Signature": "v1="},
        {"Flow-Signature": "v2" + signed(NEW, BODY)["Flow-Signature"][2:]},
        {"Flow-Signature": "Łódź"},
        {"Flow-Signature": 20 * "v1=0," + signed(NEW, BODY)["Flow-Signature"]},
    ],
    ids=lambda headers: repr(headers)[:40],
)
def test_headers_that_are_missing_or_changed_are_refused(headers: dict[str, str]) -> None:
    whole = {**signed(NEW, BODY), **headers} if headers else {}

    assert not verify(NEW, whole, BODY, 1000.0)


def test_who_is_late_or_knows_no_secret_is_refused() -> None:
    assert not verify(NEW, signed(NEW, BODY), BODY, 1301.0)
    assert not verify(NEW, signed(NEW, BODY), BODY, 699.0)
    assert verify(NEW, signed(NEW, BODY), BODY, 1301.0, tolerance=400)
    assert not verify([], signed(NEW, BODY), BODY, 1000.0)
    assert not verify("", signed("", BODY), BODY, 1000.0)


def test_headers_are_found_however_they_are_written() -> None:
    lower = {name.lower(): value for name, value in signed(NEW, BODY).items()}
    lower["flow-signature"] = "v1=00, " + lower["flow-signature"]

    assert verify([OLD, NEW], lower, BODY, 1000.0)
