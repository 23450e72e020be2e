"""The check that a page can be used by everybody, as far as axe-core finds what keeps people out."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page

AXE = Path(__file__).parent / "js" / "node_modules" / "axe-core" / "axe.min.js"  # which `make test` installs

RUN = """
async () => {
    const {violations} = await axe.run();
    return violations.map(({id, nodes}) => `${id}: ${nodes.map((node) => node.html.slice(0, 200)).join(' | ')}`);
}
"""


async def check_access(page: Page) -> None:
    """Expect that axe-core finds nothing in the present state of a page."""
    await page.evaluate(AXE.read_text())  # as the debugger does, which no policy stops
    assert await page.evaluate(RUN) == []
