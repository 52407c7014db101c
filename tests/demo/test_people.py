"""People follow the links in their mails as their role has it, until they are answered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flow.demo.cast import Role, role
from flow.demo.mail_sink import Mail
from flow.demo.people import MODERATORS, People
from flow.endpoint import Endpoint

pytestmark = pytest.mark.anyio
NUMBERS = {part: next(n for n in range(1, 400) if role(n) is part) for part in Role}


class Links:
    """A server that notes which links were followed, and is not there for a while when it is told so."""

    def __init__(self) -> None:
        self.followed: list[str] = []
        self.away = 0
        self.app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        if self.away:
            self.away -= 1
            return Response(status_code=503)
        self.followed.append(request.url.path)
        return Response()


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[Links, People, str, list[str]]]:
    links, said = Links(), list[str]()
    async with (
        Endpoint(links.app, "127.0.0.1", 0, options="--", extra="ops") as endpoint,
        People(said.append) as people,
    ):
        yield links, people, endpoint.address, said


def mail(base: str, to: str, number: int) -> Mail:
    links = (f"{base}/{number}/accept/x", f"{base}/{number}/reject/x")
    return Mail(number=1, to=to, subject="", action_id=1000 + number, message_id="", links=links)


async def thought(people: People) -> None:
    with anyio.fail_after(30):
        while people.thinking.total():  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def test_supporters_accept_reject_or_do_nothing() -> None:
    async with asked() as (links, people, base, said):
        for part in (Role.SIGNER, Role.REJECTING, Role.SILENT):
            people.read(mail(base, f"supporter+{NUMBERS[part]}@example.org", NUMBERS[part]))
        people.read(mail(base, "supporter+1@example.org", 1)._replace(links=()))
        await thought(people)

    assert sorted(links.followed) == sorted(
        [f"/{NUMBERS[Role.SIGNER]}/accept/x", f"/{NUMBERS[Role.REJECTING]}/reject/x"]
    )
    assert people.answered["supporters"] == 2
    assert said == []


async def test_the_moderator_knows_signatures_by_their_action() -> None:
    number = NUMBERS[Role.REJECTING]
    async with asked() as (links, people, base, _):
        people.numbers[1000 + number] = number
        people.read(mail(base, MODERATORS, number))
        await thought(people)

    assert links.followed == [f"/{number}/reject/x"]
    assert people.answered == {"moderator": 1}


async def test_who_is_not_answered_tries_again() -> None:
    async with asked() as (links, people, base, said):
        links.away = 2
        people.read(mail(base, "supporter+1@example.org", 1))
        await thought(people)

    assert links.followed == ["/1/accept/x"]
    assert said == []
