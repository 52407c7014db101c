"""The mails of the sink as pages: a list, and each one as it is."""

from html import escape
from typing import TYPE_CHECKING, Any

from flow.demo.mail_sink import Mail, MailSink

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SHOWN = 200  # of the latest mails
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>flow demo: mails</title>
<style>td, th {{ text-align: left; padding: 0 1em 0 0 }}</style>
<h1>{count} mails</h1>
<p>All of them are in {folder}.</p>
<table><tr><th>number<th>to<th>subject<th></tr>
{rows}
</table>
</html>
"""
POLICY = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "cache-control": "no-store",
}


def mail_page(sink: MailSink) -> Any:
    """Return an ASGI application that shows what the *sink* has."""
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Route

    async def listed(request: "Request") -> "Response":
        rows = "\n".join(row(mail) for mail in reversed(sink.mails[-SHOWN:]))
        folder = escape(str(sink.folder))
        return HTMLResponse(PAGE.format(count=len(sink.mails), folder=folder, rows=rows), headers=POLICY)

    async def shown(request: "Request") -> "Response":
        number = request.path_params["number"]
        if not 0 < number <= len(sink.mails):
            return PlainTextResponse("there is no such mail\n", 404)
        content = (sink.folder / sink.mails[number - 1].file).read_bytes()
        return PlainTextResponse(content, headers=POLICY | {"x-content-type-options": "nosniff"})

    return Starlette(routes=[Route("/", listed), Route("/{number:int}", shown)])


def row(mail: Mail) -> str:
    """Return the row of *mail*, with its links."""
    links = " ".join(
        f'<a href="{escape(link)}">{verb}</a>'
        for verb in ("accept", "reject")
        if (link := mail.link(verb)) is not None
    )
    to, subject = escape(mail.to), escape(mail.subject)
    return f'<tr><td><a href="/{mail.number}">{mail.number}</a><td>{to}<td>{subject}<td>{links}</tr>'
