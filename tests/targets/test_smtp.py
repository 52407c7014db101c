"""Handing in mail to a real server, and what becomes of each mail when it refuses, hangs or breaks off."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flow.errors import ConfigError
from flow.outcome import Reject, Retry, Unavailable
from flow.settings import Secret
from flow.targets.letters import Letter
from flow.targets.mail_server import MailServer
from flow.targets.session import MailSession
from flow.targets.smtp import FAREWELL, Bounced, OutcomeUnknown, RecipientRefused, SmtpConnection
from tests.nodes.rabbitmq_node import Certificate
from tests.targets.mail_server import DROP, Postbox, greeting_server, mail_server

pytestmark = pytest.mark.anyio

NONE = "there is no such address, says the mail server"
CONTENT = b"Subject: Thanks\r\n\r\nThank you.\r\n"


@pytest.fixture
async def postbox() -> AsyncIterator[Postbox]:
    async with mail_server() as one:
        yield one


def server(postbox: Postbox, **options: Any) -> MailServer:
    options = {"host": "127.0.0.1", "port": postbox.port, "security": "none", "timeout": 5.0} | options
    return MailServer(**options)


@asynccontextmanager
async def connected(postbox: Postbox, **options: Any) -> AsyncIterator[SmtpConnection]:
    connection = SmtpConnection(server(postbox, **options))
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def session(postbox: Postbox, *, seconds: float = 60.0) -> AsyncIterator[MailSession]:
    connection = SmtpConnection(server(postbox))
    try:
        yield MailSession(connection, patience=seconds)
    finally:
        await connection.close()


def letter(to: str) -> Letter:
    return Letter(mail_from="mail@example.org", to=to, content=CONTENT, message_id="", utf8=False)


async def send(connection: SmtpConnection, to: str = "ada@example.org", content: bytes = CONTENT) -> None:
    await connection.send("mail@example.org", to, content)


class Sending:
    """Counts how often mails were on their way, and how that ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def __aenter__(self) -> None:
        self.ends.append("begun")

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.ends[-1] = "ended" if kind is None else kind.__name__


async def test_many_mails_go_over_one_connection(postbox: Postbox) -> None:
    async with connected(postbox) as connection:
        for number in range(20):
            await send(connection, f"supporter{number}@example.org")

    assert [mail.to for mail in postbox.received] == [[f"supporter{n}@example.org"] for n in range(20)]
    assert postbox.received[0].content == CONTENT
    assert postbox.connections == 1
    assert postbox.commands == ["MAIL", "RCPT", "DATA"] * 20 + ["QUIT"]


async def test_dots_and_lone_line_ends_cannot_end_a_mail(postbox: Postbox) -> None:
    async with connected(postbox) as connection:
        await send(connection, content=b"Subject: x\r\n\r\n.\r\n..\n.\r.\r\nQUIT\r\n")
        await send(connection)

    assert postbox.received[0].content == b"Subject: x\r\n\r\n.\r\n..\r\n.\r\n.\r\nQUIT\r\n"
    assert len(postbox.received) == 2


@pytest.mark.parametrize(
    ("said", "verdict", "reason"),
    [
        ("550 5.1.1 <ada@example.org> unknown", Bounced, f"{NONE} (550 5.1.1)"),
        ("550 no such user", Bounced, f"{NONE} (550)"),
        ("550 5.7.1 blocked", RecipientRefused, "the mail server refuses the recipient (550 5.7.1)"),
        ("451 4.3.0 later", Retry, "the mail server does not take the recipient now (451 4.3.0)"),
    ],
)
async def test_a_refused_recipient_touches_no_other(
    postbox: Postbox, said: str, verdict: type[Exception], reason: str
) -> None:
    postbox.recipient = lambda address: said if address.startswith("bad") else None
    sending = Sending()
    async with connected(postbox) as connection:
        await send(connection, "good1@example.org")
        with pytest.raises(verdict) as refused:
            await connection.send("mail@example.org", "bad@example.org", CONTENT, sending=sending)
        await send(connection, "good2@example.org")

    assert type(refused.value) is verdict
    assert str(refused.value) == reason
    assert [mail.to for mail in postbox.received] == [["good1@example.org"], ["good2@example.org"]]
    assert postbox.connections == 1
    assert postbox.commands.count("RSET") == 1
    assert sending.ends == []  # it was never on its way


@pytest.mark.parametrize("said", ["500 what?", "451 later", "421 closing", DROP])
async def test_a_connection_that_does_not_forget_a_refused_mail_is_left(postbox: Postbox, said: str) -> None:
    postbox.recipient = lambda address: "550 5.7.1 no" if address.startswith("bad") else None
    postbox.reset = lambda: said
    async with session(postbox) as mails:
        await mails.send(letter("good1@example.org"))
        with pytest.raises(RecipientRefused):
            await mails.send(letter("bad@example.org"))
        await mails.send(letter("good2@example.org"))

    assert [mail.to for mail in postbox.received] == [["good1@example.org"], ["good2@example.org"]]
    assert (postbox.connections, postbox.commands.count("RSET")) == (2, 1)


async def test_a_refused_sender_or_mail_is_not_the_fault_of_who_it_is_to(postbox: Postbox) -> None:
    sending = Sending()
    async with connected(postbox) as connection:
        postbox.content = lambda envelope: "554 5.7.1 spam"
        with pytest.raises(Reject, match=r"^the mail server refuses the mail \(554 5\.7\.1\)$") as refused:
            await connection.send("mail@example.org", "ada@example.org", CONTENT, sending=sending)
        assert not isinstance(refused.value, Bounced)
        postbox.sender = lambda address: "550 5.1.1 not you"
        with pytest.raises(Reject, match=r"^the mail server refuses the sender \(550 5\.1\.1\)$") as refused:
            await send(connection)
        assert not isinstance(refused.value, Bounced)
        postbox.sender = lambda address: "530 5.7.0 log in first"
        with pytest.raises(Unavailable):
            await send(connection)

    assert sending.ends == ["Reject"]
    assert postbox.received == []


async def test_no_reply_to_a_whole_mail_is_an_unknown_outcome(postbox: Postbox) -> None:
    postbox.content = lambda envelope: DROP
    sending = Sending()
    async with connected(postbox) as connection:
        with pytest.raises(OutcomeUnknown, match=r"^the mail server did not say whether") as unknown:
            await connection.send("mail@example.org", "ada@example.org", CONTENT, sending=sending)

    assert not isinstance(unknown.value, Reject | Retry | Unavailable)
    assert sending.ends == ["OutcomeUnknown"]
    assert len(postbox.received) == 1  # it had arrived


async def test_a_server_that_never_answers_a_whole_mail_leaves_its_outcome_unknown(postbox: Postbox) -> None:
    postbox.hang = anyio.Event()
    async with connected(postbox, timeout=0.1) as connection:
        with pytest.raises(OutcomeUnknown):
            await send(connection)
        assert not connection.is_open
    postbox.hang.set()


@pytest.mark.parametrize("stage", ["sender", "recipient"])
async def test_a_drop_before_the_mail_is_given_is_tried_again(postbox: Postbox, stage: str) -> None:
    setattr(postbox, stage, lambda address: DROP)
    sending = Sending()
    async with connected(postbox) as connection:
        with pytest.raises(Retry, match=r"^the connection to the mail server broke: "):
            await connection.send("mail@example.org", "ada@example.org", CONTENT, sending=sending)

    assert sending.ends == []


async def test_a_cancelled_mail_ends_its_connection_at_once(postbox: Postbox) -> None:
    postbox.hang = anyio.Event()
    sending = Sending()
    async with connected(postbox) as connection, anyio.create_task_group() as tasks:

        async def sent() -> None:
            await connection.send("mail@example.org", "ada@example.org", CONTENT, sending=sending)

        tasks.start_soon(sent)
        await postbox.got_whole.wait()
        cancelled_at = anyio.current_time()
        tasks.cancel_scope.cancel()
    took = anyio.current_time() - cancelled_at
    postbox.hang.set()

    assert sending.ends == ["CancelledError"]
    assert took < FAREWELL / 2  # there is nobody to say good-bye to
    assert "QUIT" not in postbox.commands


async def test_a_server_that_limits_mails_for_a_connection_is_called_again(postbox: Postbox) -> None:
    def limited(address: str) -> str | None:
        return "421 4.7.0 too many" if len(postbox.received) == 2 and postbox.connections == 1 else None

    postbox.recipient = limited
    async with session(postbox) as mails:
        for number in range(4):
            await mails.send(letter(f"supporter{number}@example.org"))

    assert [mail.to for mail in postbox.received] == [[f"supporter{n}@example.org"] for n in range(4)]
    assert postbox.connections == 2


async def test_a_server_that_closes_full_connections_at_the_next_sender_is_called_again(
    postbox: Postbox,
) -> None:
    def limited(address: str) -> str | None:
        return "421 4.7.0 too many" if len(postbox.received) == 2 and postbox.connections == 1 else None

    postbox.sender = limited
    async with session(postbox) as mails:
        for number in range(4):
            await mails.send(letter(f"supporter{number}@example.org"))
        postbox.sender = lambda address: "421 4.3.2 going down"
        with pytest.raises(Unavailable, match=r"^the mail server refuses the sender \(421 4\.3\.2\)$"):
            await mails.send(letter("ada@example.org"))

    assert [mail.to for mail in postbox.received] == [[f"supporter{n}@example.org"] for n in range(4)]
    assert postbox.connections == 3


@pytest.mark.parametrize("said", ["354 go on", "199 wait", "333 more"])
async def test_a_whole_mail_that_is_answered_neither_yes_nor_no_is_never_sent_again(
    postbox: Postbox, said: str
) -> None:
    postbox.content = lambda envelope: said
    sending = Sending()
    async with session(postbox) as mails:
        with pytest.raises(OutcomeUnknown, match=f"answered the whole mail with {said[:3]}$"):
            await mails.send(letter("ada@example.org"), sending)
        postbox.content = lambda envelope: None
        await mails.send(letter("eve@example.org"))

    assert sending.ends == ["OutcomeUnknown"]
    assert postbox.connections == 2


@pytest.mark.parametrize("helo", ["mailer.example.org", "[192.0.2.1]", None])
async def test_the_server_is_greeted_by_the_name_that_is_set(postbox: Postbox, helo: str | None) -> None:
    async with connected(postbox, helo=helo) as connection:
        await send(connection)

    assert postbox.received[0].greeted == (helo or await asyncio.to_thread(socket.getfqdn))


async def test_a_mail_that_makes_every_connection_close_is_tried_again_and_holds_up_no_other(
    postbox: Postbox,
) -> None:
    postbox.recipient = lambda address: "421 bye" if address.startswith("bad") else None
    async with session(postbox) as mails:
        with pytest.raises(Retry):
            await mails.send(letter("bad@example.org"))
        await mails.send(letter("ada@example.org"))
        with pytest.raises(Retry):
            await mails.send(letter("bad@example.org"))
        await mails.send(letter("eve@example.org"))

    assert [mail.to for mail in postbox.received] == [["ada@example.org"], ["eve@example.org"]]


async def test_a_mail_that_was_given_to_a_server_is_not_given_again_in_the_same_batch(
    postbox: Postbox,
) -> None:
    sending = [Sending(), Sending()]
    async with session(postbox) as mails:
        await mails.send(letter("ada@example.org"), sending[0])
        postbox.content = lambda envelope: "421 bye"
        with pytest.raises(Retry):
            await mails.send(letter("eve@example.org"), sending[1])

    assert [one.ends for one in sending] == [["ended"], ["Retry"]]
    assert postbox.commands.count("DATA") == 2


async def test_a_server_that_is_away_is_no_fault_of_a_mail(unused_port: int) -> None:
    connection = SmtpConnection(MailServer(host="127.0.0.1", port=unused_port, security="none"))
    mails = MailSession(connection, asyncio.get_running_loop().time() + 60)

    with pytest.raises(Unavailable, match=r"^the mail server cannot be used: "):
        await mails.send(letter("ada@example.org"))


@pytest.mark.parametrize("greeting", [b"421 4.3.2 too busy\r\n", b"554 no mail here\r\n"])
async def test_a_greeting_that_refuses_means_that_the_server_is_away(greeting: bytes) -> None:
    async with greeting_server(greeting) as port:
        with pytest.raises(Unavailable, match=r"^the mail server refuses a new connection"):
            await SmtpConnection(MailServer(host="127.0.0.1", port=port, security="none")).open()


async def test_a_server_that_says_nothing_is_away_after_the_timeout() -> None:
    async with greeting_server() as port:
        for security in ("none", "tls"):
            options: Any = {"host": "127.0.0.1", "port": port, "security": security, "timeout": 0.2}
            with anyio.fail_after(10), pytest.raises(Unavailable):
                await SmtpConnection(MailServer(**options)).open()


async def test_a_batch_that_takes_too_long_leaves_its_rest_for_later(postbox: Postbox) -> None:
    async with session(postbox, seconds=-1) as mails:
        with pytest.raises(Unavailable, match=r"^the mail server is too slow for the whole batch$"):
            await mails.send(letter("ada@example.org"))

    assert postbox.connections == 0


async def test_starttls_is_verified_before_anything_is_said(hooks_certificate: Certificate) -> None:
    good = {"host": "localhost", "security": "starttls", "cafile": str(hooks_certificate.authority)}
    async with mail_server(hooks_certificate) as postbox:
        async with connected(postbox, **good, user="mailer", password=Secret("right")) as connection:
            await send(connection)
        for wrong in ({**good, "cafile": None}, {**good, "host": "127.0.0.1"}):
            with pytest.raises(Unavailable, match="certificate is not accepted"):
                await SmtpConnection(server(postbox, **wrong, password=Secret("x"), user="mailer")).open()

    [mail] = postbox.received
    assert mail.encrypted
    assert mail.user == "mailer"


async def test_implicit_tls_is_verified(hooks_certificate: Certificate) -> None:
    good = {"host": "localhost", "security": "tls", "cafile": str(hooks_certificate.authority)}
    async with mail_server(hooks_certificate, implicit=True) as postbox:
        async with connected(postbox, **good) as connection:
            await send(connection)
        with pytest.raises(Unavailable, match="certificate is not accepted"):
            await SmtpConnection(server(postbox, **{**good, "cafile": None})).open()

    assert [mail.to for mail in postbox.received] == [["ada@example.org"]]


async def test_a_server_without_starttls_gets_no_mail(postbox: Postbox) -> None:
    with pytest.raises(
        Unavailable, match=r"not offer STARTTLS \(for a try on this machine: MAIL_SECURITY=none\)"
    ):
        await SmtpConnection(server(postbox, security="starttls")).open()

    assert postbox.commands == []


async def test_a_refused_login_means_that_everything_waits_and_shows_no_password(postbox: Postbox) -> None:
    postbox.login = lambda user, password: False
    secret = Secret("canary-password")
    with pytest.raises(Unavailable) as refused:
        await SmtpConnection(server(postbox, user="mailer", password=secret)).open()

    assert str(refused.value) == "the mail server refuses the login (535 5.7.8)"
    assert "canary" not in repr(refused.value)


async def test_addresses_that_are_not_ascii_need_a_server_that_knows_them() -> None:
    async with mail_server(utf8=False) as postbox, connected(postbox) as connection:
        with pytest.raises(Reject, match="does not offer SMTPUTF8"):
            await connection.send("mail@example.org", "żofia@example.org", CONTENT, utf8=True)
        await send(connection)
    async with mail_server() as knowing, connected(knowing) as connection:
        await connection.send("mail@example.org", "żofia@example.org", CONTENT, utf8=True)

    assert [mail.to for mail in postbox.received] == [["ada@example.org"]]
    assert [(mail.to, mail.utf8) for mail in knowing.received] == [(["żofia@example.org"], True)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"host": ""}, "the mail server must be the name of a host, without a port"),
        ({"host": "a b"}, "the mail server must be the name of a host, without a port"),
        ({"port": 0}, "the port of the mail server must be from 1 to 65535, got 0"),
        ({"helo": "a b"}, "MAIL_HELO must be the name of a host, like mail.example.org"),
        ({"helo": "x\r\nRSET"}, "MAIL_HELO must be the name of a host, like mail.example.org"),
        ({"timeout": 21.0}, "the timeout of the mail server must be at most 20 s: a batch must end"),
        ({"user": "mailer"}, "the mail server needs both a user and a password, or neither"),
        ({"password": Secret("x")}, "the mail server needs both a user and a password, or neither"),
        (
            {"user": "mailer", "password": Secret("x"), "security": "none"},
            "the password of the mail server would travel unencrypted: use starttls or tls",
        ),
        (
            {"cafile": "/nowhere.pem"},
            "the certificates in /nowhere.pem cannot be read: No such file or directory",
        ),
    ],
)
def test_wrong_settings_are_told_before_anything_is_sent(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        MailServer(**{"host": "mail.example.org", **options})

    assert str(refused.value) == sentence


def test_certificates_are_verified_unless_nothing_is_encrypted() -> None:
    for security in ("starttls", "tls"):
        context = MailServer(host="mail.example.org", security=security).context()  # type: ignore[arg-type]
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
