"""The chat page for those who do not see it or use other means: axe-core finds nothing, in any state of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tailrace.chat.models.base import ModelError
from tests.access import check_access
from tests.chat.api.talking import Hold
from tests.chat.browsing import visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARKDOWN = """# One

Text, `code` and [a link](https://example.org).

> said

- one

```python
def f(x):  # why
    return f"{x}" + "one", 1.5, None
```

```diff
- old
+ new
```

| a | b |
|---|---|
| 1 | 2 |

"""

SIZES = {
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 320, "height": 640}, "color_scheme": "light", "has_touch": True},
    "forced": {"viewport": {"width": 768, "height": 800}, "forced_colors": "active"},
}


@pytest.mark.parametrize("options", SIZES.values(), ids=SIZES)
async def test_nothing_keeps_anybody_out(browser: Browser, tmp_path: Path, options: dict[str, Any]) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, MARKDOWN, hold, ModelError("it broke"), options=options) as demo:
        await demo.open()
        narrow = await demo.page.locator("#menu").is_visible()
        await check_access(demo.page)
        await demo.say("Go")
        await expect(demo.replies.locator("table")).to_be_visible()
        await check_access(demo.page)
        hold.release.set()
        await demo.ends("Failed")
        await expect(demo.notice).to_be_hidden()
        await check_access(demo.page)
        await demo.button("Edit").press("Enter")
        await check_access(demo.page)
        await demo.page.keyboard.press("Escape")
        await demo.button("Protocol").press("Enter")
        await check_access(demo.page)
        await demo.button("Close the protocol panel").press("Enter")
        if narrow:
            await demo.button("Sessions").press("Enter")
            await check_access(demo.page)
        await demo.button("More for “Go”").press("Enter")
        await check_access(demo.page)
        await demo.page.get_by_role("menuitem", name="Delete").press("Enter")
        await check_access(demo.page)
