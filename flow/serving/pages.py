"""The one page that people see: a title, a sentence, perhaps a button; it works without scripts."""

import hashlib
from base64 import b64encode
from collections.abc import Collection
from html import escape
from string import Template

from flow.serving.texts import TEXTS

STYLE = """
:root { color-scheme: light dark; font: 112.5%/1.6 system-ui, sans-serif; }
body { margin: 0; display: grid; min-height: 100vh; place-items: center; }
main { box-sizing: border-box; width: min(34rem, 100%); padding: 2rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
button { font: inherit; padding: .75rem 1.5rem; border: 2px solid #0b57d0; border-radius: .5rem;
  background: #0b57d0; color: #fff; cursor: pointer; }
button:focus-visible { outline: 3px solid CanvasText; outline-offset: 3px; }
"""
PAGE = Template("""<!doctype html>
<html lang="$language">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$text</p>
$form</main>
</body>
</html>
""")
FORM = Template("""<form method="post">
<button type="submit">$button</button>
</form>
""")
STYLE_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


def page(language: str, name: str, *, button: bool = False, campaign: str = "", action: int = 0) -> str:
    """Return the page called *name* in *language*, with a *button* that posts to the same address or none."""
    texts = TEXTS[language]
    form = FORM.substitute(button=escape(texts[f"{name}_button"])) if button else ""
    return PAGE.substitute(
        language=language,
        title=escape(texts[f"{name}_title"]),
        text=escape(texts[f"{name}_text"].format(campaign=campaign, action=action)),
        style=STYLE,
        form=form,
    )


def headers(hosts: Collection[str]) -> dict[str, str]:
    """Return the headers of every page; the form's answer may send the browser to *hosts* only."""
    targets = " ".join(["'self'", *(f"https://{host}" for host in sorted(hosts))])
    return {
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; "
        f"form-action {targets}; frame-ancestors 'none'; base-uri 'none'",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",  # the address holds the reference
        "x-content-type-options": "nosniff",
        "x-robots-tag": "noindex",
    }
