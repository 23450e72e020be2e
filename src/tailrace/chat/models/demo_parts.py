"""The demo model's texts: parts in Markdown, and the shapes of its replies."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["essay", "list", "table", "code", "quote"]


class Part(NamedTuple):
    """A block of Markdown. A message that contains one of the words in `about` is likely to get it."""

    kind: Kind
    about: frozenset[str]
    text: str


def _part(kind: Kind, about: str, text: str) -> Part:
    return Part(kind, frozenset(about.split()), text.strip())


# The shape of a reply, by a word in the message. Without such a word, the shape is one of ORDINARY.
ASKED: dict[str, tuple[Kind, ...]] = {
    "short": (),
    "long": ("essay", "code", "essay", "table", "list", "quote") * 4,
    "table": ("table",),
    "code": ("essay", "code"),
    "list": ("list",),
    "quote": ("quote",),
}
ORDINARY: tuple[tuple[Kind, ...], ...] = (
    ("essay",),
    ("essay", "code"),
    ("essay", "list"),
    ("essay", "table"),
    ("quote", "essay"),
    ("list", "code"),
    ("essay", "quote", "code", "list"),
    ("essay", "table", "essay", "code"),
)

INTRODUCTION = """\
I am the built-in demo model of this server: a few pages of text and a shuffle, not an AI. I need no key and no \
download. For a real model start the server with `--model google:…`, `openai:…`, `anthropic:…` or `ollama:…`, or name \
one in `GENAI_MODEL_ID`."""
SIGNATURE = "*The demo model, not an AI, in turn {turn}. `--model` or `GENAI_MODEL_ID` names a real one.*"

THOUGHTS = """\
The message has {size}, and one of them is the word think. So this is what thinking looks like: it comes before the \
reply, it is not part of it, and nobody keeps it."""

QUESTION = "You asked “{message}” I cannot know the answer, but I can give one at an even pace."
STATEMENT = "You wrote “{message}”: {size}, received in order."
SILENCE = "You sent a message without words. I received all of it."

REPEATED = "You sent this before, as message {number} of our {turn}. A log would say the same: the order is the truth."
RELATED = "You asked before about “{word}”: message {number} was “{message}”."
FOLLOWING = "This is message {turn} of our conversation; the one before it was “{message}”."

REMARKS = (
    "That is all. A short stream is still a stream: it has a beginning, an order and an end that is said.",
    "Nothing to add. Whoever stops here should be able to prove that it was the end.",
    "Enough for now. The rest is whitespace, and it was delivered too.",
    "So much for that. If the connection broke just now, you did not notice, and that was the plan.",
)

PARTS: tuple[Part, ...] = (
    _part(
        "essay",
        "log logs stream streams streaming history",
        """
## A stream is a log that is still growing

Think of a diary that somebody reads over your shoulder. What is written stays written, every line has its place, \
and the reader may look away for a moment: the page will still be there. A *stream* is no more than that. The writer \
appends, the reader keeps a finger on a line, and neither has to know how fast the other one is.

The usual mistake is to make a pipe of it. A pipe forgets what has passed, and whoever was not standing at its end \
has lost it.
""",
    ),
    _part(
        "essay",
        "cursor cursors resume reconnect offset reload",
        """
## A cursor is a finger on a line

To go on after an interruption, a client needs one thing: the name of the last line that it has *seen*. Not a time, \
because clocks disagree. Not a count of bytes, because they are spelled differently on every wire. A name for a \
place in the log.

With it, coming back is dull. The client says where it was, the server reads from there, and the reader cannot tell \
that there was ever a tunnel between the two.
""",
    ),
    _part(
        "essay",
        "end error errors failure truncated truncation done",
        """
## The end has to be said

Silence has many reasons: the model is thinking, the network is gone, somebody tripped over a cable. Only one of \
them is *finished*. So a stream ends with a word for it, **done**, **failed** or **stopped**, and whatever breaks \
off before that word is a part, however complete it looks.

Half an answer that looks whole is worse than none. You would have asked again.
""",
    ),
    _part(
        "essay",
        "slow backpressure flow memory queue buffer",
        """
## On being slow

A slow reader is not a fault. It is a train on a branch line. The question is only who waits for it:

1. the **writer**, which is fair where there is one reader;
2. a **queue**, which is memory that nobody planned;
3. **nobody**, because the log is there anyway, and the reader takes the next lines when it is ready.

The third is the quiet one. It also happens to be the cheapest.
""",
    ),
    _part(
        "essay",
        "token tokens model models time fast pace speed latency",
        """
## Why words arrive in small groups

People read about four words a second, and machines write faster. A pause of a tenth of a second feels like speech; \
a pause of two seconds feels like a fault. So the first words should come at once, and the rest at a steady pace: \
**time to first word** is what you feel, and the gaps between the others are what you hear.
""",
    ),
    _part(
        "essay",
        "stop stopped cancel close disconnect",
        """
## Leaving is not stopping

Closing a window says that nobody looks. It does not say that the work is unwanted: perhaps the reader is walking to \
another room, with the same conversation on another screen. *Stop* is a word of its own, and when it is said the \
model itself stops. Everything that was written until then is kept, and marked as what it is: a part.
""",
    ),
    _part(
        "essay",
        "order time clock clocks event events",
        """
## Order before time

Two events at the same millisecond have an order all the same, for somebody wrote them down. An **offset** knows \
that order; a *timestamp* only guesses. Keep both: one to go on from, the other to tell stories with.
""",
    ),
    _part(
        "list",
        "resume reconnect network",
        """
### What a client does when the line goes dead

1. It keeps what it has: the text so far is not wrong, only unfinished.
2. It waits a little, and a random bit more, so that a thousand clients don't come back in the same instant.
3. It asks for the rest, *after* the last cursor it saw:
   - if the log still has it, the text continues in the middle of the word;
   - if not, it is told so, and starts again on purpose.
4. It says nothing to the user that the user cannot use.
""",
    ),
    _part(
        "list",
        "error failure debug test tests testing",
        """
### Before you blame the network

- Does a proxy collect the whole body first? `curl -N` without it tells.
- Is something *compressing* the stream, and waiting for enough to be worth it?
- Does the client wait for a line that ends, while the server sends one that does not?
- Was the end said? If it was not, the failure is **before** the end, wherever it shows.
- Have you looked at the clock? A timeout of exactly 60 seconds is never the weather.
""",
    ),
    _part(
        "list",
        "log logs good rules",
        """
### Small rules for good logs

- [x] Append only: what was read must stay true.
- [x] One writer, many readers.
- [x] Every entry can be named.
- [x] Exactly one end.
- [ ] Infinite memory. Decide what to forget, and say what was forgotten.
""",
    ),
    _part(
        "table",
        "wire format json sse ndjson websocket http",
        """
| wire | a frame is | it ends with | good for |
|:-----|:-----------|:-------------|:---------|
| SSE | lines and an empty line | an event `done` | browsers |
| NDJSON | one line | an object that says so | programs, `jq` |
| WebSocket | one message | a close code | talking back |
| plain text | whatever comes | the end of the body | people with `curl` |
""",
    ),
    _part(
        "table",
        "speed latency time numbers measure",
        """
| what | about | feels like |
|:-----|------:|:-----------|
| a function call | 0.1 µs | nothing |
| a line into a log | 1 µs | nothing |
| a packet across the room | 200 µs | nothing |
| a packet across an ocean | 80 ms | a blink |
| the first word of a model | 400 ms | a breath |
| a spinner without text | 3 s | an eternity |
""",
    ),
    _part(
        "table",
        "state stop error interrupted done end",
        """
| how it ended | the text is | what to do |
|:-------------|:------------|:-----------|
| complete | whole | read it |
| stopped | a part, as you wished | go on, or don't |
| failed | a part, with a reason | read the reason, ask again |
| interrupted | a part, the server was restarted | ask again |
""",
    ),
    _part(
        "code",
        "python async generator",
        """
A reader that loses nothing, in Python. It is a loop and a variable:

```python
async def follow(log, cursor=None):
    while True:
        async for cursor, line in log.after(cursor):
            yield line
        if log.ended:
            return
        await log.grown()  # no polling: the writer wakes us
```

All the state is in `cursor`. That is why it can be put into a URL.
""",
    ),
    _part(
        "code",
        "javascript browser fetch js",
        """
In a browser, without any library. The `stream: true` is for the letters that were cut in half on the way:

```javascript
const response = await fetch("/chat/stream", { method: "POST", body });
const decoder = new TextDecoder();
let rest = "";
for await (const bytes of response.body) {
  const lines = (rest + decoder.decode(bytes, { stream: true })).split("\\n");
  rest = lines.pop(); // not a line yet
  lines.filter(Boolean).forEach((line) => show(JSON.parse(line)));
}
```
""",
    ),
    _part(
        "code",
        "shell bash curl terminal",
        """
From a shell, with the tools that are there anyway:

```sh
# Only the words, as they come:
curl -sN localhost:8000/chat/stream -H 'content-type: application/json' \\
     -d '{"message": "a short story, please"}' |
  jq --unbuffered -rj 'select(.type == "chunk").text'
```

`-N` keeps curl from collecting, and `--unbuffered` keeps jq from it. Forget one, and you will think the server is slow.
""",
    ),
    _part(
        "code",
        "sql database history store",
        """
A log in a table. The key is the order, so that the index *is* the reader:

```sql
SELECT offset, data
  FROM entries
 WHERE log = :log AND offset > :cursor
 ORDER BY offset
 LIMIT 128;
```
""",
    ),
    _part(
        "code",
        "json ndjson format",
        """
On the wire it is one object a line, and the last line says that it is the last:

```json
{"type": "chunk", "text": "Every line", "chunk_number": 1}
{"type": "chunk", "text": " is whole.", "chunk_number": 2}
{"type": "complete", "total_chunks": 2}
```
""",
    ),
    _part(
        "quote",
        "order story history",
        """
> A river does not repeat itself for those who came late.
> A log does, and word for word.
""",
    ),
    _part(
        "quote",
        "buffer proxy memory",
        """
> “It works on my machine,” said the proxy, and held the answer back until it was complete.
""",
    ),
    _part(
        "quote",
        "error retry failure",
        """
> Retrying is hope. Retrying with a cursor is **knowledge**.
""",
    ),
    _part(
        "quote",
        "slow time pace",
        """
> Fast is when nobody asks what is taking so long.
>
> Steady is when nobody would have.
""",
    ),
)
