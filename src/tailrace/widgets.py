"""Forms whose answers are streams: their HTML, and the script that runs them. See `js/widget.js`."""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape
from pathlib import Path

_SCRIPTS = Path(__file__).parent / "js"

_NONCE = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
"""The characters that a Content-Security-Policy allows in a nonce (CSP level 3, section 2.3.1)."""
_SPECIFIER = re.compile(r"\.{0,2}/|https?://")
"""How the address of a module begins. A browser looks other texts up in the page's import map (HTML, 8.1.6.2)."""
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_NOT_SENT = re.compile(r"/\*\*.*?\*/\s*|(?:^|\s+)//[^\n]*|^export |^\s+", re.MULTILINE | re.DOTALL)
"""Comments, `export`, indentation and blank lines. No text in the modules looks like a comment."""

_FORM = """\
<form id="{id}" class="tailrace-form" method="post">
<p><label>{label}
<textarea name="message" rows="3" dir="auto" enterkeyhint="send" aria-description="{hint}" required></textarea></label>
<small>{hint}</small></p>
<p><button type="submit" disabled>Send</button>
<button type="button" name="stop" hidden>Stop</button>
<output name="status" role="status"></output></p>
<output name="answer" role="group" aria-label="Answer" aria-live="off" dir="auto" hidden></output>
<noscript><p>This form needs JavaScript.</p></noscript>
</form>
"""
_HINT = "Enter sends. Shift+Enter starts a new line."


def get_streaming_html(form_id: str, label: str) -> str:
    """Return the HTML of a form with one field, `message`, and room for its answer. `label` is the field's, as text.

    The form works once the script of `get_streaming_js` has run. Each form of a page needs an id of its own.
    """
    return _FORM.format(id=_attribute(_checked_id(form_id)), label=escape(str(label)), hint=_HINT)


def get_streaming_js(form_id: str, endpoint: str, *, nonce: str | None = None, module: str | None = None) -> str:
    """Return the `<script>` that sends a form to `endpoint` and shows the answer as it arrives.

    - `nonce`: the nonce of the page's Content-Security-Policy.
    - `module`: the address of widget.js, if the application serves it. Otherwise the script contains all that it needs.
    """
    if nonce is not None and not _NONCE.fullmatch(nonce):
        raise ValueError(f"expected a nonce of base64 characters, but got {nonce!r:.80}")
    attributes = "" if nonce is None else f' nonce="{escape(nonce)}"'
    call = f"streamForm({_literal(_checked_id(form_id))}, {{ endpoint: {_literal(endpoint)} }});"
    if module is None:
        code = f"{_joined_modules()}\n{call}"
    else:
        code = f"import {{ streamForm }} from {_literal(_checked_module(module))};\n{call}"
    return f'<script type="module"{attributes}>\n{code}\n</script>\n'


@cache
def _joined_modules() -> str:
    """Return widget.js and the modules that it imports as one, without comments. Their names do not collide."""
    texts: dict[str, str] = {}
    _collect("widget.js", texts)
    return "\n".join(_NOT_SENT.sub("", _IMPORT.sub("", text)).strip() for text in texts.values())


def _collect(name: str, texts: dict[str, str]) -> None:
    """Add the text of a module, after those of the modules that it imports."""
    text = (_SCRIPTS / name).read_text(encoding="utf-8")
    for imported in _IMPORT.findall(text):
        if imported not in texts:
            _collect(imported, texts)
    texts[name] = text


def _literal(text: str) -> str:
    """Return a text as a JavaScript literal without any character that HTML or XML could read as its own."""
    return re.sub("[<>&']", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(str(text)))


def _attribute(text: str) -> str:
    # The HTML parser turns a carriage return into a line feed, unless it is written as a reference.
    return escape(text).replace("\r", "&#13;")


def _checked_id(form_id: str) -> str:
    text = str(form_id)
    if not text or "\0" in text:
        raise ValueError(f"expected an id of at least one character and without NUL, but got {form_id!r}")
    return text


def _checked_module(module: str) -> str:
    text = str(module)
    if not _SPECIFIER.match(text):
        raise ValueError(f"expected a module's address that begins with /, ./, ../ or https://, but got {module!r:.80}")
    return text
