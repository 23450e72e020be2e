"""How long a user waits for the prompt."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.peers import CHAT, IMPORTS, TAILRACE_PROMPT, Peer
from benchmarks.programs import seconds_to_end, seconds_to_prompt
from benchmarks.scenarios.base import Metric, Sample, Scenario

SHOWN = b"new>"
STARTS = 9
QUICK = 1

Start = Callable[[dict[str, str]], float]


def measure(peer: Peer, quick: bool) -> Sample:
    count = QUICK if quick else STARTS
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if peer is IMPORTS:
            return measure_starts(partial(seconds_to_end, peer.command(0, directory)), directory, count)
        with CHAT.serve() as server:
            argv = peer.command(server.address[1], directory)
            return measure_starts(lambda environment: seconds_to_prompt(argv, environment, SHOWN), directory, count)


def measure_starts(start: Start, directory: Path, count: int) -> Sample:
    environment = {
        "XDG_STATE_HOME": str(directory),
        "PYTHONPYCACHEPREFIX": str(directory / "compiled"),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    start(environment)  # which compiles
    return {"start_ms": median(start(environment) for _ in range(count)) * 1e3}


PROMPT = Scenario(
    name="prompt",
    title="Start of `tailrace chat` to its prompt",
    about="From the start of the process to the prompt on a pseudo-terminal, with a chat server on the loopback that "
    "answers. The other peer is a Python that imports prompt_toolkit and rich and ends. All modules were compiled "
    f"before, as at every start but the first. A round is the median of {STARTS} starts. The floor is twice the "
    "import: 0.6 s on a machine that needs 0.3 s for the import, as this one does if nothing is compiled. The second "
    "half is for the rest of the program, the check whether there is a server, and the drawing of the prompt.",
    peers=(IMPORTS, TAILRACE_PROMPT),
    metrics=(Metric("start_ms", "time to the prompt", "ms", 0, plotted=True),),
    measure=measure,
    own=TAILRACE_PROMPT,
)
