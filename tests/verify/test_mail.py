"""The double of a mail server, met by flow's own connection: what it notes, and how it fails on purpose."""

import pytest

from flow.outcome import Retry
from flow.targets.mail_server import MailServer
from flow.targets.smtp import OutcomeUnknown, SmtpConnection
from flow.verify.history import Ending, History
from flow.verify.mail import PLACE, MailDouble
from flow.verify.marks import Marks

pytestmark = pytest.mark.anyio
MAIL = b"Message-ID: <7000001.abc@example.org>\r\nSubject: x\r\n\r\nHello\r\n"
MARKS = Marks([b'{"actionId": 7000001}'])


async def sent(double: MailDouble, content: bytes) -> bool | None:
    """Send one mail, and return whether it was taken; None: nobody knows."""
    connection = SmtpConnection(MailServer(host="127.0.0.1", port=double.port, security="none"))
    await connection.open()
    try:
        await connection.send("from@example.org", "to@example.org", content)
    except Retry:
        return False
    except OutcomeUnknown:
        return None
    finally:
        await connection.close()
    return True


async def test_each_mail_ends_for_the_sender_as_it_is_noted() -> None:
    history = History({}, [])
    async with MailDouble(history, MARKS, 1) as double:
        for _ in range(30):
            taken, call = await sent(double, MAIL), history.calls[-1]
            assert taken is (
                True if call.ending is Ending.TAKEN else False if "answered" in call.fault else None
            )

    assert [(call.about, call.place) for call in history.calls] == [({0}, PLACE)] * 30
    assert {call.ending for call in history.calls} == set(Ending)


async def test_a_mail_that_speaks_of_nobody_is_taken_and_counted() -> None:
    history = History({}, [])
    async with MailDouble(history, MARKS, 1) as double:
        for _ in range(5):
            assert await sent(double, b"Subject: 17000001\r\n\r\nHello\r\n")

    assert (history.calls, history.others) == ([], 5)
