"""A reply of Markdown on a terminal, while it comes."""

from benchmarks.peers import RICH_LIVE, RICH_LIVE_FOUR, TAILRACE_TERMINAL, Peer
from benchmarks.process import ROOT
from benchmarks.programs import COLUMNS, ROWS, sample_on_terminal
from benchmarks.scenarios.base import Metric, Sample, Scenario

PIECES = 300
QUICK = 60


def measure(peer: Peer, quick: bool) -> Sample:
    sample, written = sample_on_terminal([*peer.command(0, ROOT), str(QUICK if quick else PIECES)])
    return {**sample, "written_kb": written / 1e3}


RENDERING = Scenario(
    name="rendering",
    title="Showing a reply of 6 KB on a terminal",
    about=f"Markdown of headings, paragraphs, lists, code, tables and quotes comes in {PIECES} pieces and is shown on "
    f"a pseudo-terminal of {COLUMNS} columns and {ROWS} rows, in lines of at most {COLUMNS - 1} columns. User and "
    "system time of the process, after it has loaded all its modules. `tailrace chat` and rich's `Live(Markdown)` show "
    "each piece as it comes. The third peer is rich with its default of four pictures a second, which is one for every "
    "12 pieces if 50 come in a second. `Live` shows the top of a text that does not fit until the text is complete.",
    peers=(RICH_LIVE, RICH_LIVE_FOUR, TAILRACE_TERMINAL),
    metrics=(
        Metric("cpu_ms", "CPU for the whole reply", "ms", 0, plotted=True),
        Metric("written_kb", "written to the terminal", "KB", 0),
    ),
    measure=measure,
    own=TAILRACE_TERMINAL,
)
