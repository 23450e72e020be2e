"""Run the examples one after another: `python examples`.

Each example is started on a free port, asked with the commands of its docstring, and stopped. What is printed is the
docstring, with the answers that the commands really get.
"""

import ast
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

DOCUMENTED = "127.0.0.1:8000"
LIMIT = 60.0  # seconds for one example


def main() -> None:
    for path in sorted(Path(__file__).parent.glob("0*.py")):
        print(f"== {path.name}", flush=True)
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        with serving(path) as address, TemporaryDirectory() as folder:
            script = "\n".join(script_lines(docstring.replace(DOCUMENTED, address)))
            asked = subprocess.run(["sh", "-ec", script], cwd=folder, timeout=LIMIT, check=False)
        if asked.returncode:
            sys.exit(f"expected the last command to succeed, but it ended with status {asked.returncode}")
        print(flush=True)


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """Start an example, yield its address once it listens, and stop it."""
    command = [sys.executable, str(path), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = threading.Timer(LIMIT, server.kill)
    deadline.start()
    try:
        yield wait_for_address(server)
    finally:
        server.terminate()
        server.communicate()
        deadline.cancel()


def wait_for_address(server: subprocess.Popen[str]) -> str:
    """Read what the server logs until it names its address. What it logs later is a few lines, which the pipe holds."""
    lines = []
    for line in server.stderr or ():
        lines.append(line)
        if " running on http://" in line:
            return line.partition("http://")[2].split()[0]
    sys.exit(f"expected a server that starts, but it ended:\n{''.join(lines)}")


def script_lines(docstring: str) -> Iterator[str]:
    """Turn a docstring into a shell script that prints the prose, and prints and runs the commands.

    A command is indented and begins with `$`. A backslash continues it. Other indented lines are the documented output.
    """
    lines = iter(docstring.splitlines())
    gap = False
    for line in lines:
        gap = gap or not line
        if not line or (line.startswith(" ") and not line.startswith("    $ ")):
            continue
        shown = [line]
        while shown[-1].endswith("\\"):
            shown.append(next(lines))
        if gap:
            yield "echo"
        gap = False
        yield from part_of_script(dedent("\n".join(shown)))


def part_of_script(text: str) -> Iterator[str]:
    yield f"printf '%s\\n' {shlex.quote(text)}"
    if text.startswith("$ "):
        # Braces and no pipe, because a command may set a variable for those that follow.
        yield f"{{ {text[2:]}\n}} >output"
        # A JSON document has no newline at its end, and SSE has two.
        yield "[ ! -s output ] || printf '%s\\n' \"$(cat output)\""


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
