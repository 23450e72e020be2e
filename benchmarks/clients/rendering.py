"""Shows a reply of Markdown on its terminal: `python -m benchmarks.clients.rendering PEER PIECES`.

The sample goes to stderr, because the terminal is what is written to.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

SECTION = """\
## Part {number}: what a reader holds

A stream is a *log*, and a response is a reader of it at a **cursor**. Whoever comes back with the `id` of the last
event that arrived gets what came after it, and nothing twice: the log is the same for all, and it does not matter
which of its readers came first.

- The producer appends, and does not know who reads.
- A reader waits for what is *not there yet*, and is woken once for all that has come meanwhile.
- Nothing is kept for a reader but its number:
  the log has the bytes already.

```python
async def numbers(limit: int) -> AsyncIterator[int]:
    # Every value is an event of its own.
    for number in range(limit):
        yield number * {number}
        await asyncio.sleep(0.02)
```

| state     | meaning                  | what follows       |
|-----------|--------------------------|--------------------|
| open      | more may come            | the next event     |
| done      | the producer has ended   | nothing            |
| cancelled | somebody stopped it      | nothing            |

> A lost connection is no end of a stream. It is a reader that will come back, and says where it was.

1. Ask with the cursor.
2. Read on from there.

"""
SECTIONS = 5
PER_PICTURE = 12
"""Pieces for each picture of a display that is drawn four times a second, if 50 pieces come in one."""

Show = Callable[[Sequence[str]], None]


def reply() -> str:
    """About 6 KB."""
    return "".join(SECTION.format(number=number) for number in range(1, SECTIONS + 1))


def cut(text: str, count: int) -> list[str]:
    """In so many pieces, of as many characters each as can be."""
    ends = [len(text) * number // count for number in range(count + 1)]
    return [text[start:end] for start, end in pairwise(ends)]


def tailrace() -> Show:
    from tailrace.cli.terminal.view import TerminalView, make_console

    view = TerminalView(make_console())

    def show(pieces: Sequence[str]) -> None:
        view.begin("demo")
        for piece in pieces:
            view.piece(piece)
        view.end("complete")

    return show


def live(*, every: int) -> Show:
    """rich's display of the whole text so far, drawn again after so many pieces."""
    from rich.console import Console
    from rich.live import Live
    from rich.markdown import Markdown

    # As wide as tailrace's lines, which leave the last column free.
    console = Console()
    console.width -= 1

    def show(pieces: Sequence[str]) -> None:
        with Live(console=console, auto_refresh=False) as display:
            for number, text in enumerate(accumulate(pieces), 1):
                display.update(Markdown(text), refresh=number % every == 0)

    return show


PEERS: dict[str, Callable[[], Show]] = {
    "tailrace-terminal": tailrace,
    "rich-live": lambda: live(every=1),
    "rich-live-four": lambda: live(every=PER_PICTURE),
}


def main() -> None:
    peer, count = sys.argv[1], int(sys.argv[2])
    if not sys.stdout.isatty():
        raise SystemExit("expected a terminal as the output, but got something else")
    show, text = PEERS[peer](), reply()
    # What is loaded late, such as the lexers of code, is loaded here.
    show([SECTION])
    start = time.process_time()
    show(cut(text, count))
    spent = time.process_time() - start
    print(json.dumps({"cpu_ms": spent * 1e3}), file=sys.stderr)


if __name__ == "__main__":
    main()
