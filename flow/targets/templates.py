"""Templates of mails: one folder for each, with a folder for each language; rendered in a sandbox."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.codec import tried
from flow.errors import ConfigError
from flow.outcome import Retry
from flow.targets.addresses import one_line

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

SHIPPED = Path(__file__).parent / "letters"
NAME = re.compile(r"\w[\w .@-]{0,99}(/\w[\w .@-]{0,99}){0,4}")
LOCALE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}")
DEFAULT = "default"
SUBJECT, TEXT, HTML = "subject.txt", "body.txt", "body.html"
LARGEST = 1 << 20  # characters of one part


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a template makes for one person; printed as nothing."""

    subject: str
    text: str
    html: str | None

    def __repr__(self) -> str:
        return "<Rendered>"


@dataclass(frozen=True, slots=True)
class LetterTemplate:
    """One template in one language."""

    name: str
    locale: str
    """The folder that was found: `de_AT`, `de` or `default`."""
    subject: "Template"
    text: "Template"
    html: "Template | None"

    def render(self, variables: Mapping[str, Any]) -> Rendered:
        """Fill it in.

        Raises:
            Retry: the template is wrong; the reason says where, and quotes no variable.
        """
        html = None if self.html is None else self._part(self.html, variables)
        # Lines that hold nothing but a tag leave empty ones behind.
        text = re.sub(r"\n{3,}", "\n\n", self._part(self.text, variables)).strip() + "\n"
        return Rendered(one_line(self._part(self.subject, variables)), text, html)

    def _part(self, part: "Template", variables: Mapping[str, Any]) -> str:
        rendered, error = tried(part.render, variables)
        if error is not None:
            raise Retry(f"the template {part.name} cannot be filled in: {said(error)}")
        if len(rendered) > LARGEST:
            raise Retry(f"the template {part.name} makes more than {LARGEST >> 20} MiB")
        return str(rendered)


class Templates:
    """The templates in a folder of yours, and those that flow brings along.

    Templates see the variables they are given and nothing else of the program: neither files nor modules.
    """

    def __init__(self, folder: str | None = None) -> None:
        """Take the *folder*; None: only what flow brings along.

        Raises:
            ConfigError: the folder is not there, or Jinja2 is not installed.
        """
        try:
            from jinja2 import FileSystemLoader, StrictUndefined, select_autoescape
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ModuleNotFoundError:
            raise ConfigError("Jinja2 is needed to write mails: install proca-flow[mail]") from None
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"the folder of templates {folder} is not there")
        self._environments: list[SandboxedEnvironment] = [
            ImmutableSandboxedEnvironment(
                loader=FileSystemLoader(path),
                autoescape=select_autoescape(["html"], default=False),
                undefined=StrictUndefined,
                keep_trailing_newline=True,
            )
            for path in ([SHIPPED] if folder is None else [Path(folder), SHIPPED])
        ]

    def find(self, name: str, locale: str) -> LetterTemplate:
        """Return the template *name* in the language nearest to *locale*: `de_AT`, else `de`, else `default`.

        A folder that has the template in any of them wins over what flow brings along.

        Raises:
            Retry: there is none, or it cannot be read as a template.
        """
        if not NAME.fullmatch(name):
            raise Retry("the name of the template is none: it has letters, digits, blanks and . _ - @ /")
        for environment in self._environments:
            for language in chain(locale):
                place = f"{name}/{language}"
                if (subject := self._load(environment, f"{place}/{SUBJECT}")) is not None:
                    text = self._load(environment, f"{place}/{TEXT}")
                    if text is None:
                        raise Retry(f"the template {place} has no {TEXT}")
                    html = self._load(environment, f"{place}/{HTML}")
                    return LetterTemplate(name, language, subject, text, html)
        raise Retry(f"there is no template {name} for {' or '.join(chain(locale))}")

    def _load(self, environment: "SandboxedEnvironment", path: str) -> "Template | None":
        from jinja2 import TemplateNotFound

        template, error = tried(environment.get_template, path)
        if isinstance(error, TemplateNotFound):
            return None
        if error is not None:
            raise Retry(f"the template {path} cannot be read: {said(error)}")
        found: Template = template
        return found


def chain(locale: str) -> Iterator[str]:
    """Yield the names of languages in the order in which they are looked for."""
    if LOCALE.fullmatch(locale):
        first, *others = re.split("[_-]", locale)
        parts = [first.lower(), *(spelt(part) for part in others)]
        while parts:
            yield "_".join(parts)
            parts.pop()
    yield DEFAULT


def spelt(part: str) -> str:
    """Return a part of a locale as it is usually spelt: AT, Latn."""
    return part.title() if len(part) == 4 and part.isalpha() else part.upper()


def said(error: Exception) -> str:
    """Say what is wrong with a template, without what may quote a variable."""
    from jinja2 import TemplateSyntaxError, UndefinedError
    from jinja2.exceptions import SecurityError

    if isinstance(error, TemplateSyntaxError):
        return f"line {error.lineno}: {one_line(error.message or 'wrong syntax')}"
    if isinstance(error, UndefinedError | SecurityError):
        return one_line(error.message or type(error).__name__)
    return type(error).__name__
