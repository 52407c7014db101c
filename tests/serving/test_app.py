"""What the links answer, over a real port: to people, to their mail scanners, to programs, to guessers."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any, Self

import anyio
import httpx2
import pytest

from flow.errors import DatabaseDown, DatabaseError
from flow.links import Links, Tokens
from flow.records.linked import Linked
from tests.serving.desk import ACME, OTHER, REF, SECRET, MemoryDesk, serving
from tests.stages.world import JumpingLoop

pytestmark = pytest.mark.anyio
SUPPORTER = f"/link/s/7/accept/{REF}"


class Page(HTMLParser):
    """What is on a page, as far as a person notices it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.language = ""
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self.form: dict[str, str | None] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "html":
            self.language = dict(attrs)["lang"] or ""
        if tag == "form":
            self.form = dict(attrs)

    def handle_data(self, data: str) -> None:
        if not self.tags:
            return
        self.texts[self.tags[-1]] = self.texts.get(self.tags[-1], "") + data.strip()


async def test_a_link_shows_a_page_with_a_button_and_decides_nothing() -> None:
    """Mail scanners follow links."""
    async with serving() as browser:
        answer = await browser.get(SUPPORTER)
        head = await browser._ask("HEAD", SUPPORTER, {})

    page = Page(answer.text)
    assert (answer.status_code, head.status_code) == (200, 200)
    assert browser.desk.calls == []
    assert page.form == {"method": "post"}
    assert page.texts["button"] == "Ja, das war ich"
    assert page.texts["h1"] == "Bitte bestätigen"
    assert page.texts["p"] == 'Haben Sie bei „Save <b>"bees"</b>“ mitgemacht? Ein Klick bestätigt es.'


async def test_the_button_confirms_and_may_be_pressed_again() -> None:
    async with serving() as browser:
        answers = [await browser.post(SUPPORTER) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert Page(answers[1].text).texts["h1"] == "Vielen Dank"
    assert browser.desk.statuses["supporter"] == "accepted"


@pytest.mark.parametrize("path", ["/", "/link/s/7/accept/", "/link/s/7", "/link/s/7/accept/a/b"])
async def test_a_link_that_was_cut_off_is_told_in_a_page(path: str) -> None:
    async with serving() as browser:
        person = await browser.get(path, accept_language="fr")
        program = await browser.act(path)

    assert (person.status_code, program.status_code) == (404, 404)
    assert Page(person.text).texts["h1"] == "Ce lien ne fonctionne pas"
    assert person.headers["content-security-policy"].startswith("default-src 'none'")
    assert program.json() == {"error": "not_found"}


async def test_what_was_decided_the_other_way_stays() -> None:
    async with serving() as browser:
        await browser.post(SUPPORTER)
        answer = await browser.post(f"/link/s/7/reject/{REF}")

    assert answer.status_code == 409
    assert Page(answer.text).texts["h1"] == "Darüber ist schon entschieden"
    assert browser.desk.statuses["supporter"] == "accepted"


@pytest.mark.parametrize(("query", "doi"), [("?doi=1", True), ("?doi=0", False), ("", False)])
async def test_a_double_opt_in_is_noted_when_the_link_says_so(query: str, doi: bool) -> None:
    async with serving() as browser:
        await browser.post(SUPPORTER + query)

    assert browser.desk.calls == [("supporter", 7, "accept", doi)]


WRONG = [
    f"/link/s/8/accept/{REF}",
    "/link/s/7/accept/guessed",
    f"/link/s/7/accept/{REF}x",
    f"/link/s/7/accept/{REF[:-1]}",
    f"/link/s/7/accept/{REF[:1]}",
    f"/link/s/7/destroy/{REF}",
    f"/link/s/07x/accept/{REF}",
    f"/link/s/-7/accept/{REF}",
    f"/link/s/{10**30}/accept/{REF}",
    "/link/a/7/accept/guessed",
    "/link/a/7/accept",
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", WRONG)
async def test_a_wrong_reference_is_not_found_and_decides_nothing(url: str, method: str) -> None:
    async with serving() as browser:
        answer = await browser._ask(method, url, {"accept-language": "xx, fr;q=0.5"})

    assert answer.status_code == 404
    assert Page(answer.text).language == "fr"
    assert browser.desk.calls == []


async def test_an_action_without_a_supporter_has_no_reference_not_even_an_empty_one() -> None:
    desk = MemoryDesk()
    desk.found = type(desk.found)(
        action_id=7, contact_ref=None, organisation="acme", locale="en", campaign="x"
    )
    async with serving(desk) as browser:
        answers = [await browser.post(f"/link/s/7/accept/{reference}") for reference in ("", "None", "%20")]

    assert {answer.status_code for answer in answers} == {404}
    assert desk.calls == []


class Slow(MemoryDesk):
    """Takes longer when there is something to find."""

    async def find(self, action_id: int) -> Linked | None:
        found = await super().find(action_id)
        await anyio.sleep(0.2 if found else 0.1)
        return found


class Within:
    """Stands for the endpoint where time must be the loop's alone: the application is called without it."""

    address = "http://links.example"
    app: Any = None

    def __init__(self, app: Any, *_: Any, **__: Any) -> None:
        Within.app = app

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def test_right_and_wrong_answers_take_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loop whose time passes only while somebody waits."""
    monkeypatch.setattr("tests.serving.desk.Endpoint", Within)
    loop = JumpingLoop()
    took = set()

    async def ask() -> None:
        async with (
            serving(Slow(), pace=0.3) as browser,
            httpx2.AsyncClient(transport=httpx2.ASGITransport(Within.app)) as client,
        ):
            for url in (
                SUPPORTER,
                "/link/s/7/accept/guessed",
                f"/link/s/8/accept/{REF}",
                "/link/a/7/accept/x",
            ):
                for method in ("GET", "POST"):
                    began = loop.time()
                    answer = await client.request(method, browser.base + url)
                    took.add((answer.status_code, round(loop.time() - began, 3)))

    try:
        loop.run_until_complete(ask())
    finally:
        loop.close()

    assert took == {(200, 0.3), (404, 0.3)}


async def test_an_address_that_asks_too_often_waits_and_others_do_not() -> None:
    async with serving(requests=3, proxies=("127.0.0.1",)) as browser:

        async def ask(address: str) -> Any:
            return await browser.get("/link/s/7/accept/guessed", x_forwarded_for=address)

        statuses = [(await ask("192.0.2.1")).status_code for _ in range(5)]
        other = await ask("192.0.2.2")
        networks = [(await ask(f"2001:db8::{n}")).status_code for n in range(4)]
        refused = await ask("192.0.2.1")

    assert statuses == [404, 404, 404, 429, 429]
    assert other.status_code == 404
    assert networks == [404, 404, 404, 429]
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_wrong_tokens_are_counted_as_well_and_right_ones_are_not() -> None:
    async with serving(requests=3) as browser:
        statuses = [(await browser.act(SUPPORTER, token="x" * 33)).status_code for _ in range(5)]
        program = await browser.act(SUPPORTER)

    assert statuses == [401, 401, 401, 429, 429]
    assert program.status_code == 200


async def test_without_a_trusted_proxy_nobody_names_an_address_of_their_own() -> None:
    async with serving(requests=3) as browser:
        statuses = [
            (await browser.get(SUPPORTER, x_forwarded_for=f"192.0.2.{n}")).status_code for n in range(4)
        ]

    assert statuses == [200, 200, 200, 429]


async def test_moderators_decide_by_signed_links() -> None:
    async with serving() as browser:
        link = browser.links.moderator(7, "accept")
        page = await browser.get(link)
        answer = await browser.post(link)
        other = await browser.post(link.replace("/7/", "/8/"))

    assert Page(page.text).texts["h1"] == "Diese Aktion annehmen?"
    assert (answer.status_code, other.status_code) == (200, 404)
    assert browser.desk.calls == [("action", 7, "accept")]


async def test_an_old_moderators_link_has_expired() -> None:
    async with serving(moderation=Tokens(SECRET, valid=-1)) as browser:
        answer = await browser.post(browser.links.moderator(7, "accept"))
        forged = await browser.post(Links(browser.base, "x" * 32).moderator(7, "accept"))

    assert (answer.status_code, forged.status_code) == (410, 404)
    assert browser.desk.calls == []


async def test_programs_act_by_a_get_with_their_token() -> None:
    async with serving() as browser:
        answer = await browser.act(SUPPORTER + "?doi=1")
        again = await browser.act(SUPPORTER)
        moderated = await browser.act("/link/a/7/reject")

    assert answer.json() == {"actionId": 7, "supporter": "accepted", "action": "new", "agreed": True}
    assert again.status_code == 200
    assert moderated.json()["action"] == "rejected"
    assert browser.desk.calls == [
        ("supporter", 7, "accept", True),
        ("supporter", 7, "accept", False),
        ("action", 7, "reject"),
    ]


async def test_a_program_that_only_looks_whether_a_link_works_decides_nothing() -> None:
    async with serving() as browser:
        answer = await browser.act(SUPPORTER, method="HEAD")

    assert (answer.status_code, answer.content) == (200, b"")
    assert browser.desk.calls == []


async def test_a_get_without_both_token_and_json_only_shows_the_page() -> None:
    async with serving() as browser:
        for headers in ({"accept": "application/json"}, {"authorization": f"Bearer {ACME}"}):
            answer = await browser.get(SUPPORTER, **headers)
            assert answer.headers["content-type"].startswith("text/html")

    assert browser.desk.calls == []


@pytest.mark.parametrize(
    ("token", "status"), [("x" * 34, 401), ("x", 401), (OTHER, 404), (ACME[:-1], 401), ("ł" * 33, 401)]
)
async def test_a_token_counts_for_its_organisation_only(token: str, status: int) -> None:
    async with serving() as browser:
        header = f"Bearer {token}".encode()
        answers = [
            await browser._client.get(
                browser.base + url, headers=[(b"authorization", header), (b"accept", b"application/json")]
            )
            for url in (SUPPORTER, "/link/a/7/accept")
        ]

    assert [answer.status_code for answer in answers] == [status, status]
    assert browser.desk.calls == []


REDIRECTS = [
    ("https://acme.example.org/thanks?a=b", True),
    ("https://acme.example.org#@evil.example/", True),
    (" https://acme.example.org/", False),
    ("https://acme.example.org /", False),
    ("https://acme.example.org\t/", False),
    ("https://acme.example.org./", False),
    ("https://@acme.example.org/", False),
    ("https://evil.example#@acme.example.org/", False),
    ("https://evil.example?@acme.example.org/", False),
    ("https://acme.example.org%2eevil.example/", False),
    ("https://acme.example.org\u3002evil.example/", False),
    ("https://acm\u0435.example.org/", False),
    ("https:acme.example.org/", False),
    ("https:///evil.example/", False),
    ("/\\evil.example/", False),
    ("https://ACME.example.org/", True),
    ("http://acme.example.org/", False),
    ("https://acme.example.org.evil.example/", False),
    ("https://acme.example.org@evil.example/", False),
    ("https://user@acme.example.org/", False),
    ("https://acme.example.org:8443/", False),
    ("//acme.example.org/", False),
    ("https:/\\evil.example/", False),
    ("https://evil.example\\@acme.example.org/", False),
    ("javascript:alert(1)", False),
    ("https://[", False),
]


@pytest.mark.parametrize(("target", "allowed"), REDIRECTS)
async def test_people_are_sent_on_to_listed_hosts_only_and_confirmed_in_any_case(
    target: str, allowed: bool
) -> None:
    async with serving(redirect_hosts=frozenset({"acme.example.org"})) as browser:
        answer = await browser.post(browser.links.supporter(7, "accept", REF, redirect=target))

    assert answer.headers.get("location") == (target if allowed else None)
    assert answer.status_code == (303 if allowed else 200)
    assert browser.desk.statuses["supporter"] == "accepted"


async def test_whoever_comes_too_late_is_told_so_and_not_sent_on() -> None:
    async with serving(redirect_hosts=frozenset({"acme.example.org"})) as browser:
        await browser.post(SUPPORTER)
        answer = await browser.post(
            browser.links.supporter(7, "reject", REF, redirect="https://acme.example.org/bye")
        )

    assert (answer.status_code, answer.headers.get("location")) == (409, None)
    assert Page(answer.text).texts["h1"] == "Darüber ist schon entschieden"


async def test_pages_load_nothing_run_nothing_and_are_kept_nowhere() -> None:
    async with serving(redirect_hosts=frozenset({"acme.example.org"})) as browser:
        answers = [await browser.get(SUPPORTER), await browser.get("/link/s/7/accept/guessed")]

    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "form-action 'self' https://acme.example.org;" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("error", [DatabaseDown, DatabaseError])
async def test_without_the_database_it_says_to_come_back_and_is_not_ready(error: type[DatabaseError]) -> None:
    desk = MemoryDesk()
    async with serving(desk) as browser:
        ready = await browser.get("/readyz")
        desk.down, desk.backlog.down = error, "127.0.0.1:5432, database flow cannot be reached"
        answers = [await browser.post(SUPPORTER), await browser.act(SUPPORTER), await browser.get("/readyz")]
        live = await browser.get("/livez")

    assert (ready.status_code, live.status_code) == (200, 200)
    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert answers[0].headers["retry-after"] == "60"
    assert answers[2].text == "not ready\n", "where the database is concerns nobody out there"


async def test_what_has_nothing_to_decide_is_not_found_and_was_not_decided_before() -> None:
    desk = MemoryDesk()
    desk.empty = True
    async with serving(desk) as browser:
        program = await browser.act("/link/a/7/accept")
        moderator = await browser.post(browser.links.moderator(7, "accept"))

    assert (program.status_code, program.json()) == (404, {"error": "not_found"})
    assert moderator.status_code == 404
    assert sum(browser.numbers.link_decisions.values()) == 0


async def test_every_answer_is_counted_by_its_result_and_every_decision_by_who_made_it() -> None:
    desk = MemoryDesk()
    async with serving(desk, requests=6) as browser:
        await browser.get(SUPPORTER)
        await browser.post(SUPPORTER)
        await browser.post(f"/link/s/7/reject/{REF}")
        await browser.post("/link/s/7/accept/guessed")
        await browser.get("/nothing")
        await browser.act("/link/a/7/reject")
        await browser.act("/link/a/7/reject")
        await browser.act(SUPPORTER, token="x" * 33)
        desk.down = DatabaseDown
        await browser.get(SUPPORTER)
        await browser.get(SUPPORTER)
        numbers = browser.numbers

    assert numbers.link_requests == {
        "page": 1,
        "decided": 3,
        "late": 1,
        "not_found": 2,
        "expired": 0,
        "unauthorized": 1,
        "busy": 1,
        "away": 1,
        "failed": 0,
    }
    assert {key: number for key, number in numbers.link_decisions.items() if number} == {
        ("supporter", "accept", "changed"): 1,
        ("supporter", "reject", "refused"): 1,
        ("program", "reject", "changed"): 1,
        ("program", "reject", "unchanged"): 1,
    }
    assert numbers.link_seconds.count == 9


async def test_an_error_that_nobody_foresaw_is_counted_as_well() -> None:
    desk = MemoryDesk()
    desk.down = ZeroDivisionError
    async with serving(desk) as browser:
        answer = await browser.get(SUPPORTER)

    assert answer.status_code == 500
    assert browser.numbers.link_requests["failed"] == 1


async def test_how_long_an_answer_took_is_told_without_the_wait_for_the_pace() -> None:
    async with serving(pace=0.5) as browser:
        await browser.get(SUPPORTER)

    assert browser.numbers.link_seconds.total < 0.5


async def test_a_wrong_token_is_told_to_people_in_a_page_as_well() -> None:
    async with serving() as browser:
        answer = await browser.get(SUPPORTER, authorization=f"Bearer {'x' * 33}", accept_language="es")

    assert answer.status_code == 401
    assert Page(answer.text).language == "es"


async def test_a_password_for_the_proxy_makes_nobody_a_program() -> None:
    """A site that is not public yet asks for one, and hands it on."""
    async with serving() as browser:
        answer = await browser.post(SUPPORTER, authorization="Basic YWRhOnNlY3JldA==")

    assert answer.status_code == 200
    assert browser.numbers.link_decisions["supporter", "accept", "changed"] == 1


async def test_a_reference_may_hold_every_letter() -> None:
    desk = MemoryDesk()
    desk.found = replace(desk.found, contact_ref="a/b+c==?d#ü%2F&")
    async with serving(desk) as browser:
        answer = await browser.post(browser.links.supporter(7, "accept", "a/b+c==?d#ü%2F&"))

    assert answer.status_code == 200


@pytest.mark.parametrize("path", [f"{SUPPORTER}/", "/link/a/7/accept/", "/livez/"])
async def test_nobody_is_sent_from_a_secure_link_to_an_open_one(path: str) -> None:
    """The process does not see that the proxy speaks TLS."""
    async with serving() as browser:
        answer = await browser.get(path)

    assert answer.status_code == 404
    assert "location" not in answer.headers
