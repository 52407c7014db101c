"""Links that stand in mails: to confirm, to deny, to decide, and to unsubscribe."""

from collections.abc import Mapping
from typing import Literal, TypeAlias
from urllib.parse import quote, urlsplit

from flow.errors import ConfigError
from flow.links import SECRET, VERBS, Links
from flow.options import variable
from flow.outcome import Reject, Unavailable
from flow.records.mailing import Recipient
from flow.schema import ActionMessage
from flow.targets.addresses import mailbox
from flow.targets.mail_server import LOOPBACK

About: TypeAlias = Literal["action", "supporter"]
STAGES: Mapping[str | None, About] = {"action_confirm": "action", "supporter_confirm": "supporter"}


class ConfirmLinks:
    """The links by which supporters say that they signed, or did not."""

    def __init__(self, url: str) -> None:
        """Take the address at which supporters reach `flow serve`.

        Raises:
            ConfigError: it is none that can stand in a mail.
        """
        self._links = Links(web_address("MAIL_LINK_URL", url))

    def variables(self, to: Recipient) -> dict[str, str]:
        """Return `accept_link` and `reject_link`.

        Who asked for mail from the organisation opts in for the second time with the first of them.
        """
        action_id, reference = to.action_id, to.contact_ref
        return {
            "accept_link": self._links.supporter(action_id, "accept", reference, doi=to.opt_in is True),
            "reject_link": self._links.supporter(action_id, "reject", reference),
        }


class DecisionLinks:
    """The links by which an organisation decides: of its actions as a moderator, or of its supporters."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        """Take the address at which moderators reach `flow serve`; FLOW_LINK_SECRET of *environment* signs.

        Raises:
            ConfigError: it is none that can stand in a mail, or the secret is too short.
        """
        self._links = Links(web_address("MODERATE_LINK_URL", url), variable(environment, SECRET))

    def of(self, body: ActionMessage) -> tuple[About, str, str]:
        """Return what is to be decided, and the links that accept and reject it.

        Raises:
            Reject: nothing is to be decided.
            Unavailable: it is an action, and there is no secret to sign with.
        """
        about, action_id, reference = STAGES.get(body.stage), body.action_id, body.contact.contact_ref
        if about is None:
            raise Reject("nothing in it is to be decided: is this the right queue?")
        if about == "supporter":
            accept, reject = (self._links.supporter(action_id, verb, reference) for verb in VERBS)
            return about, accept, reject
        try:
            accept, reject = (self._links.moderator(action_id, verb) for verb in VERBS)
        except ConfigError as error:
            raise Unavailable(str(error)) from None
        return about, accept, reject


class UnsubscribeLinks:
    """How supporters get rid of mail, in the text and in the headers that mail programs show as a button."""

    def __init__(self, url: str | None, address: str | None) -> None:
        """Take an *url*, in which `{contact_ref}`, `{action_id}` and `{org}` are replaced, and an *address*.

        Raises:
            ConfigError: one of them cannot stand in a mail.
        """
        self._url = "" if url is None else web_address("MAIL_UNSUBSCRIBE_URL", url)
        found = mailbox(address or "")
        if address is not None and (found is None or not address.isascii()):
            raise ConfigError("MAIL_UNSUBSCRIBE_ADDRESS must be an address like leave@example.org")
        self._address = "" if found is None else found.text

    def variables(self, to: Recipient) -> dict[str, str]:
        """Return `unsubscribe_link`, or "" without an url."""
        link = self._url
        for name, value in (("contact_ref", to.contact_ref), ("action_id", to.action_id), ("org", to.org)):
            link = link.replace(f"{{{name}}}", quote(str(value), safe=""))
        return {"unsubscribe_link": link}

    def headers(self, to: Recipient) -> dict[str, str]:
        """Return `List-Unsubscribe`, and for https that one click is enough (RFC 8058)."""
        link = self.variables(to)["unsubscribe_link"]
        ways = [link, f"mailto:{self._address}?subject=unsubscribe" if self._address else ""]
        headers = {"List-Unsubscribe": ", ".join(f"<{way}>" for way in ways if way)} if any(ways) else {}
        if link.startswith("https://"):
            headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        return headers


def web_address(name: str, url: str) -> str:
    """Return *url*, the setting *name*, if it can stand in a mail.

    Raises:
        ConfigError: it is none; only this machine may be named without https.
    """
    parts = urlsplit(url)
    good = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not good or not parts.hostname or not url.isascii() or not url.isprintable() or set(" <>,") & set(url):
        raise ConfigError(f"{name} must be an address that begins with https://")
    return url
