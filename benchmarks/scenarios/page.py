"""A reply of Markdown on a page, while it comes."""

import sys
import tempfile

from benchmarks.peers import CHAT_PAGE, PLAIN_PAGE, Peer
from benchmarks.programs import sample_of
from benchmarks.scenarios.base import Metric, Sample, Scenario

PIECES = 300
QUICK = 60


def measure(peer: Peer, quick: bool) -> Sample:
    with tempfile.TemporaryDirectory() as folder, peer.serve({"TAILRACE_DATABASE": f"{folder}/chat.sqlite3"}) as server:
        pieces, port = str(QUICK if quick else PIECES), str(server.address[1])
        return sample_of([sys.executable, "-m", "benchmarks.clients.page", peer.name, port, pieces])


PAGE = Scenario(
    name="page",
    title="Showing a reply of 6 KB on a page",
    about=f"Markdown of headings, paragraphs, lists, code, tables and quotes comes in {PIECES} pieces, 50 in a second, "
    "and is shown by Chromium without a display. Time on the processor of the page's main thread, as Chromium reports "
    "it (`TaskDuration`): scripts, style, layout and painting, after a first reply. The chat's page shows the Markdown "
    "as HTML with highlighted code, the state of the reply and the list of sessions; the plain page appends each piece "
    "to the `textContent` of one element.",
    peers=(PLAIN_PAGE, CHAT_PAGE),
    metrics=(Metric("cpu_ms", "CPU for the whole reply", "ms", 0, plotted=True),),
    measure=measure,
    own=CHAT_PAGE,
)
