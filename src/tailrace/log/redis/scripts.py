"""The Lua scripts that change a stream in one step, and the keys that they use.

A stream has three keys under one hash tag, so that they are in one slot of a cluster:

- `log` is a Redis Stream. Each of its entries is a batch of events, and the id of a batch is `<last offset>-0`. So
  `XRANGE <offset + 1> +` begins with the batch that holds the next event, wherever a reader stopped. The one field of
  an entry is its frame (`frames.py` has the format). The key's name is also the channel on which they are published.
- `tags` is a sorted set of the batches that were appended with a key: their tags, by their last offset. It is kept as
  long as the batches, and there is none while no append has a key.
- `meta` is a hash: everything else that all processes must agree on. Its name is the channel of all other frames.

| field | meaning |
|---|---|
| `epoch` | the incarnation. No meta, or one of another epoch, is `gone`: each script compares it first |
| `top`, `tag` | the last offset, and the tag of the batch that ends there (`-` before the first) |
| `base`, `floor` | the last trimmed offset, and how many bytes of JSON were appended up to it |
| `cum` | how many bytes of JSON were appended in all; `cum - floor` are kept |
| `since` | when the oldest kept batch was appended, in ms of the server's clock; only of streams that forget by age |
| `count`, `size`, `age` | the retention, 0 for no bound; `age` in ms |
| `out` | the outcome as JSON, empty while the stream is open |
| `fence`, `owner` | the number of the newest lease, and the process that holds it, empty if nobody does |
| `stop` | 1 once somebody asked the writer to stop |
| `readers` | the processes that have readers, each with a space after it |
| `seat` | the newest claim to read the stream alone, or empty |
| `version` | counts the changes of the five fields above, so that older news cannot replace newer ones |
| `passing`, `print`, `made` | facts of its creation |
| `maker` | the process that made it for a producer of its own, or empty |

Redis runs a script alone, but undoes nothing of one that fails half-way. Therefore:

- All checks and all searches stand before the first write. Refusals are answers, not errors.
- The first write is one that needs memory (HSET, XADD). Redis refuses a script above `maxmemory` only at such a
  command: with a DEL before it, the script ran on and wrote (measured on 7.0).
- A batch's tag is its idempotency id. An append that is sent again says which `top` was known before the first try,
  and the script looks for the tag after it. A first try stores nothing for this and searches nothing. If the append
  has a key, its tag is made of that, and any try may be a repeat. Those tags are in a set of their own, because a
  search after what the mirror holds would look at each append of the same moment (some 5 µs each, measured).
- Nothing expires in an append, of which expiries are a sixth. `touch` renews them.

Trimming drops whole batches, and only once the stream exceeds a bound by an eighth, so nearly all appends search
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from .link import Script


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one stream's keys."""

    meta: str
    log: str
    tags: str

    @classmethod
    def of(cls, prefix: str, name: str) -> Keys:
        """Name the keys of a stream. Braces in its name would move the hash tag, so they are escaped."""
        escaped = name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        log = f"{prefix}:{{{escaped}}}"
        return cls(f"{log}:meta", log, f"{log}:tags")

    @property
    def all(self) -> tuple[str, str, str]:
        """The keys in the order in which scripts get them."""
        return self.meta, self.log, self.tags


_HEAD = """
local meta, log, tags = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
local function int(number) return string.format('%.0f', number) end
"""

_KNOWN = (
    _HEAD
    + """
if call('HGET', meta, 'epoch') ~= ARGV[1] then return {'gone'} end
"""
)
"""The beginning of a script that is about one incarnation, `ARGV[1]`."""

_BATCHES = """
-- Entries in a range, from its first one on: as many as fit into a number of bytes, at least one if there is one.
local function batches(command, from, to, room)
  local found, count = {}, 1
  while true do
    local page = call(command, log, from, to, 'COUNT', count)
    for _, entry in ipairs(page) do
      room = room - #entry[2][2]
      if room < 0 and #found > 0 then return found end
      table.insert(found, entry)
      from = '(' .. entry[1]
    end
    if #page < count then return found end
    count = math.min(2 * count, 64)
  end
end
"""
"""Find batches without reading many more bytes than asked for. Nobody knows their sizes before."""

_TELL = """
local function tell()
  local version = call('HINCRBY', meta, 'version', 1)
  local m = call('HMGET', meta, 'epoch', 'fence', 'owner', 'stop', 'seat', 'readers')
  local frame = {'!', m[1], version, m[2], m[3] == '' and '0' or '1', m[4], m[5] == '' and '-' or m[5], m[6]}
  call('PUBLISH', meta, table.concat(frame, ' '))
end
"""
"""Publish a control frame, after a change of fence, owner, stop, seat or readers."""

_EXPIRE = """
local function expire(ms)
  for _, key in ipairs(KEYS) do
    if ms == '0' then call('PERSIST', key) else call('PEXPIRE', key, ms) end
  end
end
"""

CREATE = Script(
    _HEAD
    + _EXPIRE
    + """
-- ARGV: epoch, passing, fingerprint, maker, creation time, count, size, age, expiry in ms or 0
local found = call('HGET', meta, 'epoch')
if found then return {'exists', found} end
call('HSET', meta, 'epoch', ARGV[1], 'passing', ARGV[2], 'print', ARGV[3], 'maker', ARGV[4], 'made', ARGV[5],
  'count', ARGV[6], 'size', ARGV[7], 'age', ARGV[8],
  'top', '0', 'tag', '-', 'base', '0', 'floor', '0', 'cum', '0', 'since', '0',
  'out', '', 'fence', '0', 'owner', '', 'stop', '0', 'readers', '', 'seat', '', 'version', '0')
call('UNLINK', log, tags)
expire(ARGV[9])
return {'ok', call('HGETALL', meta), '', {}}
"""
)
"""Make a stream and answer as LOAD does, or answer `exists` and the epoch of what is there.

An earlier stream may have left its entries.

The log has no key before its first batch. So `append` gives it the expiry of the meta then.
"""

LOAD = Script(
    _HEAD
    + _BATCHES
    + """
-- ARGV: epoch or empty, top of what the mirror knows, the most bytes to answer
local m = call('HGETALL', meta)
if #m == 0 then return {'gone'} end
local facts = {}
for i = 1, #m, 2 do facts[m[i]] = m[i + 1] end
if ARGV[1] ~= '' and ARGV[1] ~= facts.epoch then return {'gone'} end
local at = ARGV[2] ~= '0' and call('XRANGE', log, ARGV[2], ARGV[2])[1]
local tag = at and string.match(at[2][2], '^%+ %S+ %d+ %d+ (%S+)') or ''
return {'ok', m, tag, batches('XREVRANGE', '+', int(ARGV[2] + 1), tonumber(ARGV[3]))}
"""
)
"""Answer the meta, the tag of the batch that ends where a mirror stands, and the batches after it, the newest first.

The tag is empty if there is no such batch any more. If there are too many batches, the oldest are left out.
"""

PAGE = Script(
    _HEAD
    + _BATCHES
    + """
-- ARGV: offset, the most bytes to answer
return batches('XRANGE', int(ARGV[1] + 1), '+', tonumber(ARGV[2]))
"""
)
"""Answer the batches from the one that holds the entry after an offset."""

APPEND = Script(
    _HEAD
    + """
-- ARGV: epoch, fence, known top of a repeated try or empty, 1 if the tag is that of a key,
-- expected tag or empty, tag, count, bytes of JSON, rows
local epoch, fence, known, keyed, expected, tag, n, bytes, rows = unpack(ARGV)
local m = call('HMGET', meta, 'epoch', 'out', 'owner', 'fence', 'top', 'tag',
  'base', 'floor', 'cum', 'count', 'size', 'age', 'since')
if m[1] ~= epoch then return {'gone'} end

local function parse(entry)
  local top, tag, cum, time = string.match(entry[2][2], '^%+ %S+ (%d+) %d+ (%S+) %S+ (%d+) (%d+)')
  return {top = tonumber(top), tag = tag, cum = tonumber(cum), time = tonumber(time)}
end

local place = keyed == '1' and call('ZSCORE', tags, tag)
local first = place and call('XRANGE', log, place, place)[1]
if first then return {'ok', first[2][2]} end
if known ~= '' then
  local after, page = tonumber(known)
  repeat
    page = call('XRANGE', log, int(after + 1), '+', 'COUNT', 64)
    for _, entry in ipairs(page) do
      local batch = parse(entry)
      if batch.tag == tag then return {'ok', entry[2][2]} end
      after = batch.top
    end
  until #page < 64
end
if m[2] ~= '' then return {'closed', m[2]} end
if fence ~= (m[3] ~= '' and m[4] or '') then return {'fenced', m[4]} end
if expected ~= '' and expected ~= m[6] then return {'diverged', m[5], m[6]} end

local last, base, floor = tonumber(m[5]), tonumber(m[7]), tonumber(m[8])
local top, cum = last + tonumber(n), tonumber(m[9]) + tonumber(bytes)
local count, size, age, since = tonumber(m[10]), tonumber(m[11]), tonumber(m[12]), tonumber(m[13])
local now = 0
if age > 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local too_many = count > 0 and top - base > count + math.floor(count / 8)
local too_large = size > 0 and cum - floor > size + math.floor(size / 8)
local too_old = age > 0 and since > 0 and since < now - age - age / 8
local trimmed = false
if too_many or too_large or too_old then
  -- The newest batch that ends at or before an offset.
  local function before(offset)
    local entry = call('XREVRANGE', log, int(offset), '-', 'COUNT', 1)[1]
    return entry and parse(entry)
  end

  -- The newest batch that a test calls old. Batches become old in their order, so this halves the range.
  local function newest_old(is_old)
    local low, high, found = base, last, nil
    while low < high do
      local middle = math.ceil((low + high) / 2)
      local batch = before(middle)
      if not batch or batch.top <= low then low = middle
      elseif is_old(batch) then found, low = batch, middle
      else high = batch.top - 1 end
    end
    return found
  end

  for _, cut in pairs({
    too_many and before(math.min(top - count, last)) or nil,
    too_large and newest_old(function(batch) return cum - batch.cum >= size end) or nil,
    too_old and newest_old(function(batch) return batch.time < now - age end) or nil,
  }) do
    if cut.top > base then base, floor, trimmed = cut.top, cut.cum, true end
  end
end

-- To spell a number takes as long as a small command, so most are spelled once, and those that stay not at all.
local new = {top = int(top), cum = int(cum), base = m[7], floor = m[8]}
local frame = '+ ' .. epoch .. ' ' .. new.top .. ' ' .. n .. ' ' .. tag .. ' ' .. m[6] .. ' ' .. new.cum .. ' '
  .. (age > 0 and int(now) or '0')
if trimmed then
  new.base, new.floor = int(base), int(floor)
  frame = frame .. ' ' .. new.base .. ' ' .. new.floor .. '\\n' .. rows
  call('XADD', log, 'MINID', '=', int(base + 1), new.top .. '-0', 'f', frame)
  call('HSET', meta, 'top', new.top, 'tag', tag, 'cum', new.cum, 'base', new.base, 'floor', new.floor)
else
  frame = frame .. '\\n' .. rows
  call('XADD', log, new.top .. '-0', 'f', frame)
  call('HSET', meta, 'top', new.top, 'tag', tag, 'cum', new.cum)
end
if age > 0 and (trimmed or since == 0) then
  local entry = call('XRANGE', log, int(base + 1), '+', 'COUNT', 1)[1]
  call('HSET', meta, 'since', int(parse(entry).time))
end

local function outlive(key)
  local left = call('PTTL', meta)
  if left > 0 then call('PEXPIRE', key, left) end
end
if last == base then outlive(log) end
if keyed == '1' then
  call('ZADD', tags, new.top, tag)
  if call('ZCARD', tags) == 1 then outlive(tags) end
end
if trimmed then call('ZREMRANGEBYSCORE', tags, '-inf', new.base) end
call('PUBLISH', log, frame)
return {'ok', new.top, m[6], new.cum, new.base, new.floor}
"""
)
"""Append one batch, and publish its frame. If the batch is there already, answer its frame.

The keys of the log and of the tags may be new, and then get the expiry of the meta.
"""

END = Script(
    _HEAD
    + _TELL
    + _EXPIRE
    + """
-- ARGV: epoch, fence or empty, expected tag or empty, outcome, expiry in ms or 0
local m = call('HMGET', meta, 'epoch', 'out', 'owner', 'fence', 'top', 'tag')
if m[1] ~= ARGV[1] then return {'gone'} end
if m[2] ~= '' then return {'closed', m[2]} end
local holder = m[3] ~= '' and m[4] or ''
if ARGV[2] ~= '' and ARGV[2] ~= holder and m[4] ~= '0' then return {'fenced', m[4]} end
if ARGV[3] ~= '' and ARGV[3] ~= m[6] then return {'diverged', m[5], m[6]} end
call('HSET', meta, 'out', ARGV[4], 'owner', '')
call('PUBLISH', meta, '= ' .. m[1] .. ' ' .. m[5] .. ' ' .. m[6] .. ' ' .. ARGV[4])
tell()
expire(ARGV[5])
return {'ok', m[5], m[6]}
"""
)
"""End a stream. Its writer sends its fence and the tag it expects; anybody else neither.

If no lease is known, the server has lost the writer's lease, and nobody else would end the stream.
"""

LEASE = Script(
    _HEAD
    + _TELL
    + """
-- ARGV: epoch, process, how much greater than the last fence the new one is
local m = call('HMGET', meta, 'epoch', 'out', 'owner', 'fence', 'stop')
if m[1] ~= ARGV[1] then return {'gone'} end
if m[2] ~= '' then return {'closed', m[2]} end
if m[3] ~= '' and m[3] ~= ARGV[2] then return {'fenced', m[4]} end
-- A stop was for the writer before, unless there was none.
call('HSET', meta, 'owner', ARGV[2], 'stop', m[4] == '0' and m[5] or '0')
local fence = call('HINCRBY', meta, 'fence', ARGV[3])
tell()
local now = call('HMGET', meta, 'version', 'top', 'tag', 'stop', 'seat', 'readers')
return {'ok', int(fence), unpack(now)}
"""
)
"""Take the lease. The process that holds it may take it again: the answer to its first call may have been lost.

Fences rise in random steps. A failover may roll a lease back, and with steps of one, the next lease would get the fence
of a writer that still believes in its own.
"""

RELEASE = Script(
    _KNOWN
    + _TELL
    + """
-- ARGV: epoch, fence
local m = call('HMGET', meta, 'owner', 'fence')
if m[1] == '' or m[2] ~= ARGV[2] then return {'fenced', m[2]} end
call('HSET', meta, 'owner', '')
tell()
return {'ok'}
"""
)

STOP = Script(
    _KNOWN
    + _TELL
    + """
-- ARGV: epoch
local m = call('HMGET', meta, 'out', 'stop', 'owner', 'passing', 'fence')
if m[1] ~= '' then return {'closed', m[1]} end
if m[3] == '' and (m[4] ~= '1' or m[5] ~= '0') then return {'ok', '0'} end
if m[2] ~= '1' then
  call('HSET', meta, 'stop', '1')
  tell()
end
return {'ok', '1'}
"""
)

READERS = Script(
    _KNOWN
    + _TELL
    + _EXPIRE
    + """
-- ARGV: epoch, process, 1 if it has readers or 0, expiry in ms or 0
local readers, mine = call('HGET', meta, 'readers'), ARGV[2] .. ' '
local from, to = string.find(readers, mine, 1, true)
if from and ARGV[3] == '0' then
  call('HSET', meta, 'readers', string.sub(readers, 1, from - 1) .. string.sub(readers, to + 1))
  tell()
elseif not from and ARGV[3] == '1' then
  call('HSET', meta, 'readers', readers .. mine)
  tell()
end
expire(ARGV[4])
return {'ok'}
"""
)
"""Note that a process got its first reader, or lost its last one, and renew the expiry."""

CLAIM = Script(
    _KNOWN
    + _TELL
    + """
-- ARGV: epoch, the claim before or empty, the new claim
if call('HGET', meta, 'seat') == ARGV[2] then
  call('HSET', meta, 'seat', ARGV[3])
  tell()
end
return {'ok'}
"""
)
"""Note a claim to read a stream alone, unless another claim has come in place of the one before."""

BURY = Script(
    _HEAD
    + _TELL
    + _EXPIRE
    + """
-- ARGV: process, outcome, expiry in ms or 0
local m = call('HMGET', meta, 'epoch', 'out', 'owner', 'top', 'tag', 'readers', 'maker', 'fence')
if not m[1] then return {'gone'} end
-- Nobody else writes a stream that its maker has not begun to write.
local unbegun = m[7] == ARGV[1] and m[2] == '' and m[8] == '0' and m[4] == '0'
local lost = m[3] == ARGV[1] or unbegun
local from, to = string.find(m[6], ARGV[1] .. ' ', 1, true)
if from then
  call('HSET', meta, 'readers', string.sub(m[6], 1, from - 1) .. string.sub(m[6], to + 1))
end
if lost then
  call('HSET', meta, 'out', ARGV[2], 'owner', '')
  call('PUBLISH', meta, '= ' .. m[1] .. ' ' .. m[4] .. ' ' .. m[5] .. ' ' .. ARGV[2])
  expire(ARGV[3])
end
if from or lost then tell() end
return {'ok'}
"""
)
"""Remove a dead process from a stream, and end the stream if that process was its writer, or was about to be."""

TOUCH = Script(
    _KNOWN
    + _EXPIRE
    + """
-- ARGV: epoch, expiry in ms or 0, 1 if it is for an open stream
local out = call('HGET', meta, 'out')
if ARGV[3] == '1' and out ~= '' then return {'closed', out} end
expire(ARGV[2])
return {'ok'}
"""
)

DROP = Script(
    _KNOWN
    + """
-- ARGV: epoch
call('UNLINK', meta, log, tags)
call('PUBLISH', meta, 'x ' .. ARGV[1])
return {'ok'}
"""
)
"""Forget a stream. Its first write frees memory, and there is no other."""

SCRIPTS = (CREATE, LOAD, PAGE, APPEND, END, LEASE, RELEASE, STOP, READERS, CLAIM, BURY, TOUCH, DROP)
