"""People who are asked by mail or as moderators: they follow a link, or they do not."""

from collections import Counter
from collections.abc import Callable
from random import Random
from types import TracebackType

import anyio
import anyio.abc

from flow.demo.cast import Role, number_of, role
from flow.demo.mail_sink import Mail
from flow.links import Links, Verb

SOONEST, LATEST = 0.1, 0.8  # seconds that people take to read
TOGETHER = 20  # of them at once
PAUSE = 0.5  # seconds until somebody tries again
TRIES = 40


def verb_of(number: int) -> Verb | None:
    """Return what is answered about the signature with this *number*; None: nothing."""
    part = role(number)
    if part is Role.SILENT:
        return None
    return "reject" if part is Role.REJECTING else "accept"


class People:
    """Supporters and a moderator with browsers; `async with` lets them begin and go."""

    def __init__(self, links: Links, say: Callable[[str], None]) -> None:
        """Moderate by signed *links*, and *say* what does not work."""
        self.answered: Counter[str] = Counter()
        """How often a link was followed, by who did it: supporters, moderator."""
        self.thinking = 0
        """How many are about to follow a link."""
        self._links = links
        self._say = say
        self._numbers: dict[int, int] = {}
        self._chance = Random(614)
        self._limiter = anyio.CapacityLimiter(TOGETHER)

    async def __aenter__(self) -> "People":
        import httpx2

        self._http = httpx2.AsyncClient(trust_env=False, timeout=30.0)
        await self._http.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._http.__aexit__(None, None, None)

    def read(self, mail: Mail) -> None:
        """Let the supporter read a *mail*: one with links is perhaps answered."""
        verb = verb_of(number_of(mail.to))
        link = mail.link(verb) if verb else None
        if link is not None:
            self._follow(link, "supporters")

    def moderate(self, action_id: int, number: int) -> None:
        """Let the moderator look at an action, the signature with this *number*."""
        verb = verb_of(number)
        if verb is not None:
            self._follow(self._links.moderator(action_id, verb), "moderator")

    def _follow(self, link: str, who: str) -> None:
        self.thinking += 1
        self._tasks.start_soon(self._click, link, who, self._chance.uniform(SOONEST, LATEST))

    async def _click(self, link: str, who: str, seconds: float) -> None:
        import httpx2

        await anyio.sleep(seconds)
        said = "no answer"
        try:
            for _ in range(TRIES):
                async with self._limiter:
                    try:
                        answer = await self._http.post(link)
                    except httpx2.HTTPError as error:
                        said = type(error).__name__
                    else:
                        said = str(answer.status_code)
                        if answer.is_success:
                            self.answered[who] += 1
                            return
                await anyio.sleep(PAUSE)
            self._say(f"a link could not be followed: {said}")
        finally:
            self.thinking -= 1
