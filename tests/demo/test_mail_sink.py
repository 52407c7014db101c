"""The mail server of the demo, as flow's own mailer talks to it, and its page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import anyio
import httpx2
import pytest

from flow.demo.mail_page import mail_page
from flow.demo.mail_sink import Mail, MailSink
from flow.endpoint import Endpoint
from flow.outcome import Retry, Unavailable
from flow.targets.mail_server import MailServer
from flow.targets.smtp import Bounced, SmtpConnection

pytestmark = pytest.mark.anyio


def mail(text: str) -> bytes:
    made = EmailMessage(policy=SMTP)
    made["Subject"] = "Bitte bestätigen: sauberes Wasser"
    made["To"] = "ada@example.org"
    made["Message-ID"] = "<17.abc@example.org>"
    made.set_content(text, cte="quoted-printable")
    made.add_alternative(f"<p>{text}</p>", subtype="html")
    return made.as_bytes()


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[tuple[MailSink, SmtpConnection, list[Mail]]]:
    arrived: list[Mail] = []
    async with MailSink(folder, arrived.append) as sink:
        connection = SmtpConnection(MailServer(host="127.0.0.1", port=sink.port, security="none"))
        await connection.open()
        try:
            yield sink, connection, arrived
        finally:
            await connection.close()


async def test_a_mail_is_kept_as_it_is_and_read(tmp_path: Path) -> None:
    link = "http://127.0.0.1:8080/link/s/17/accept/ref" + "-" * 70  # too long for a line of a mail
    content = mail(f"Grüße\n.\n..\n{link}\nhttp://127.0.0.1:8080/link/s/17/reject/ref\n")
    async with talking(tmp_path) as (sink, connection, arrived):
        for _ in range(2):
            await connection.send("mail@example.org", "ada@example.org", content)

    assert sink.mails == arrived
    first = arrived[0]
    assert (first.number, first.to, first.action_id) == (1, "ada@example.org", 17)
    assert first.subject == "Bitte bestätigen: sauberes Wasser"
    assert first.link("accept") == link
    assert first.link("unsubscribe") is None
    assert [one.file for one in arrived] == ["000001.eml", "000002.eml"]
    assert (tmp_path / first.file).read_bytes() == content


async def test_it_refuses_as_it_is_told(tmp_path: Path) -> None:
    refusals = {"no@example.org": "550 5.1.1 no such address", "grey@example.org": "451 4.7.1 come again"}
    async with talking(tmp_path) as (sink, connection, arrived):
        sink.recipient = refusals.get
        with pytest.raises(Bounced):
            await connection.send("mail@example.org", "no@example.org", mail("x"))
        with pytest.raises(Retry):
            await connection.send("mail@example.org", "grey@example.org", mail("x"))
        await connection.send("mail@example.org", "ada@example.org", mail("x"))

        assert [one.to for one in arrived] == ["ada@example.org"]
        assert sink.refused.total() == 2


async def test_down_means_all_of_it(tmp_path: Path) -> None:
    async with talking(tmp_path) as (sink, connection, arrived):
        sink.down = True
        with pytest.raises(Unavailable):
            await connection.send("mail@example.org", "ada@example.org", mail("x"))
        with pytest.raises(Unavailable):
            await connection.open()
        sink.down = False
        await connection.open()
        await connection.send("mail@example.org", "ada@example.org", mail("x"))

        assert len(arrived) == 1


async def test_nonsense_is_answered_or_ends_the_connection(tmp_path: Path) -> None:
    async with MailSink(tmp_path, lambda mail: None) as sink:
        with anyio.fail_after(10):
            stream = await anyio.connect_tcp("127.0.0.1", sink.port)
            async with stream:
                await stream.send(b"DATA\r\n\r\nRCPT\r\nQUIT\r\n")
                said = b""
                while b"221" not in said:
                    said += await stream.receive()
            async with await anyio.connect_tcp("127.0.0.1", sink.port) as stream:
                await stream.send(b"x" * (3 << 20))
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await stream.receive()

    assert said.count(b"503") == 2
    assert sink.mails == []


async def test_the_page_shows_mails_with_their_links(tmp_path: Path) -> None:
    async with talking(tmp_path) as (sink, connection, _):
        text = "http://127.0.0.1:8080/link/s/17/accept/ref?a&b\n"
        await connection.send("mail@example.org", "ada@example.org", mail(text))
        async with (
            Endpoint(mail_page(sink), "127.0.0.1", 0, options="--", extra="ops") as endpoint,
            httpx2.AsyncClient(base_url=endpoint.address, trust_env=False) as client,
        ):
            listed, shown, none = [await client.get(path) for path in ("/", "/1", "/2")]

    assert 'href="http://127.0.0.1:8080/link/s/17/accept/ref?a&amp;b"' in listed.text
    assert "ada@example.org" in listed.text
    assert "Message-ID: <17.abc@example.org>" in shown.text
    assert shown.headers["content-type"].startswith("text/plain")
    assert none.status_code == 404
