"""People who are asked by mail or as moderators: they follow a link, or they do not."""

from collections import Counter
from collections.abc import Callable
from random import Random
from types import TracebackType

import anyio
import anyio.abc

from flow.demo.cast import Role, number_of, role
from flow.demo.mail_sink import Mail
from flow.links import Verb

MODERATORS = "moderators@example.org"
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

    def __init__(self, say: Callable[[str], None]) -> None:
        """*Say* what does not work."""
        self.answered: Counter[str] = Counter()
        """How often a link was followed, by who did it: supporters, moderator."""
        self.thinking: Counter[str] = Counter()
        """How many are about to follow a link, by who does it."""
        self.numbers: dict[int, int] = {}
        """The numbers of the signatures, by the id of the action: so the moderator knows them."""
        self._say = say
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
        """Let somebody read a *mail*: one with links is perhaps answered."""
        moderating = mail.to == MODERATORS
        verb = verb_of(self.numbers.get(mail.action_id, 0) if moderating else number_of(mail.to))
        link = mail.link(verb) if verb else None
        if link is None:
            return
        who = "moderator" if moderating else "supporters"
        self.thinking[who] += 1
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
            self.thinking[who] -= 1
