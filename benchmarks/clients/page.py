"""Shows a reply in Chromium: `python -m benchmarks.clients.page PEER PORT PIECES`."""

import json
import shutil
import sys
from collections.abc import Callable

from playwright.sync_api import CDPSession, Page, sync_playwright

from benchmarks.clients.rendering import reply

PATIENCE = 20_000
"""Milliseconds."""


def chat_page(page: Page, message: str) -> str:
    """Send a message on the chat's page, and return the text that is shown at the end."""
    ended = page.locator(".outcome[data-state=complete]")
    earlier = ended.count()
    field = page.get_by_label("Message", exact=True)
    field.fill(message)
    field.press("Enter")
    ended.nth(earlier).wait_for()
    return page.locator(".message.assistant .said").last.inner_text()


def plain_page(page: Page, message: str) -> str:
    page.evaluate("(message) => ask(message)", message)
    return page.locator("p").last.inner_text()


PEERS: dict[str, tuple[str, Callable[[Page, str], str]]] = {
    "chat-page": ("/demo", chat_page),
    "plain-page": ("/plain", plain_page),
}


def main() -> None:
    peer, port, pieces = sys.argv[1:]
    path, show = PEERS[peer]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://127.0.0.1:{port}{path}")
        session = page.context.new_cdp_session(page)
        # The time on the processor, which other processes do not lengthen.
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        show(page, "2")  # compiles the scripts, and lays a page out
        before = busy(session)
        shown = show(page, pieces)
        spent = busy(session) - before
        browser.close()
    last = reply().rstrip().splitlines()[-1].partition(". ")[2]
    if last not in shown:
        raise SystemExit(f"expected a reply that ends with {last!r}, but got {shown[-200:]!r}")
    print(json.dumps({"cpu_ms": spent * 1e3}))


def busy(session: CDPSession) -> float:
    """Seconds in which the main thread of the page was busy."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


if __name__ == "__main__":
    main()
