-- What the scripts on a meeting share; stands in front of each.
--
-- KEYS: 1 what the names of the meeting's keys begin with.
-- ARGV: 1 now, 2 the epoch of the log that may have to begin, 3 the life, 4 and 5 the epoch and seq that the caller knows
-- (an empty epoch: none), 6 most events of a log, 7 how long they are kept. All times are ms.
--
-- Keys, each behind KEYS[1]:
--   :meta       hash: e epoch, s top, t the last event's time, n messages that were ever logged, c when it closes, l life,
--               b the epoch with which the log began
--   :log        list of events without holes, the last is the top
--   :messages   hash by id: the messages that are in the log
--   :reactions  hash: who has put what on those
--   :marks      hash by user: seq, messages at it, own messages above it, when it was moved
--   :updates    the event ids of the last 10 min, and the last 16
--   :sent:<user>  the client_ids of an author
--   :authors    set: who has one of those
-- Whatever is read is read before anything is written, so that a key of another type ends a script with nothing done.
local call = redis.call
local base = KEYS[1]
local META, LOG, MESSAGES, REACTIONS = base .. ':meta', base .. ':log', base .. ':messages', base .. ':reactions'
local MARKS, UPDATES, AUTHORS = base .. ':marks', base .. ':updates', base .. ':authors'

local now = tonumber(ARGV[1])
local HISTORY_SIZE, HISTORY_TTL = tonumber(ARGV[6]), tonumber(ARGV[7])
local HOUR, DAY = 3600000, 86400000
-- How long keys live that nobody uses: a day longer than what is in them.
local LOG_KEPT = HISTORY_TTL + DAY
local META_KEPT = LOG_KEPT + 90 * DAY
-- Events that are dropped in one call; what is left over goes in the next ones.
local DROPPED_MAX = 5000
local CHUNK = 100

-- kind, time, messages up to here, version or count, where the erasable begins (from 1; 0: nowhere), message, author,
-- emoji; behind it the content.
local ITEM = '>BI8I8I4I4Bc0I2c0I2c0'
-- seq and time when it was made, of its last event, its version, seq and time of its deletion, author; behind it the seqs
-- of its edits, 8 bytes each.
local MESSAGE = '>I8I8I8I8I4I8I8I2c0'
local MARK = '^(%d+) (%d+) (%d+) (%d+)$'

local epoch, birth, top, last_ts, total, closes_at, len

local function int(number)
  return string.format('%.0f', number)
end

-- Sees to it that a key lives on. Asking costs nothing that is sent to replicas.
local function keep(key, ms)
  local is_short = call('PTTL', key) < ms - math.min(HOUR, ms / 2)
  if is_short then
    call('PEXPIRE', key, ms)
  end
  return is_short
end

local function pack_mark(seq, total_at, own, moved_at)
  return int(seq) .. ' ' .. int(total_at) .. ' ' .. int(own) .. ' ' .. int(moved_at)
end

local function find_mark(user)
  local mark = call('HGET', MARKS, user)
  if not mark then
    return nil
  end
  local seq, total_at, own, moved_at = string.match(mark, MARK)
  return { seq = tonumber(seq), total_at = tonumber(total_at), own = tonumber(own), moved_at = tonumber(moved_at) }
end

-- Nobody has read further than the log goes.
local function cut_marks()
  local marks = call('HGETALL', MARKS)
  for i = 1, #marks, 2 do
    local seq, _, _, moved_at = string.match(marks[i + 1], MARK)
    if not seq or tonumber(seq) > top then
      call('HSET', MARKS, marks[i], pack_mark(top, total, 0, tonumber(moved_at) or now))
    end
  end
end

-- Drops the events and what is remembered of them.
local function drop_contents()
  local authors = redis.pcall('SMEMBERS', AUTHORS)
  for _, author in ipairs(authors) do
    call('UNLINK', base .. ':sent:' .. author)
  end
  call('UNLINK', LOG, MESSAGES, REACTIONS, UPDATES, AUTHORS)
  len = 0
end

-- Reads where the log stands. One that is not there begins; one that has gone back goes on in another epoch.
local function begin()
  local meta = call('HMGET', META, 'e', 's', 't', 'n', 'c', 'l', 'b')
  epoch, birth, closes_at = meta[1], meta[7] or meta[1], tonumber(meta[5])
  top, last_ts, total = tonumber(meta[2]) or 0, tonumber(meta[3]) or 0, tonumber(meta[4]) or 0
  local life, told = tonumber(meta[6]) or 0, tonumber(ARGV[3]) or 0
  if not epoch then
    top, last_ts, total = 0, 0, 0
    cut_marks()
    -- What belongs to a log whose end is not known any more belongs to no log.
    drop_contents()
    epoch, birth = ARGV[2], ARGV[2]
    call('HSET', META, 'e', epoch, 'b', birth, 's', 0, 't', 0, 'n', 0, 'l', told)
  else
    len = call('LLEN', LOG)
    local is_back = told > life or (ARGV[4] == epoch and tonumber(ARGV[5]) > top)
    if is_back or len > top then
      cut_marks()
      if len > top then
        drop_contents()
      end
      epoch = ARGV[2]
      call('HSET', META, 'e', epoch, 'l', math.max(told, life))
    end
  end
  -- Nobody misses a log without an event for long, and ids are easily made up.
  if keep(META, (top == 0 and not closes_at) and HOUR or META_KEPT) then
    call('PEXPIRE', MARKS, META_KEPT)
  end
end

-- Drops the first events, at most CHUNK.
local function drop_first(count)
  local first = top - len + 1
  for i, item in ipairs(call('LPOP', LOG, count)) do
    local kind, _, _, _, _, id, author, emoji = struct.unpack(ITEM, item)
    if kind == 0 then
      local message = call('HGET', MESSAGES, id)
      if message and struct.unpack('>I8', message) == first + i - 1 then
        call('HDEL', MESSAGES, id)
      end
    elseif kind == 3 then
      -- Its message went before.
      redis.pcall('HDEL', REACTIONS, id .. 'k', id .. 'n' .. emoji, id .. 'u' .. #emoji .. ':' .. emoji .. author)
    end
  end
  len = len - count
end

-- Drops events that are too many or too old.
local function trim()
  if len > 0 and now - last_ts > HISTORY_TTL then
    call('UNLINK', LOG, MESSAGES, REACTIONS)
    len = 0
  end
  local left = DROPPED_MAX
  while len > HISTORY_SIZE and left > 0 do
    drop_first(math.min(CHUNK, len - HISTORY_SIZE))
    left = left - CHUNK
  end
  while len > 0 and left > 0 and now - struct.unpack('>I8', call('LINDEX', LOG, 0), 2) > HISTORY_TTL do
    local old = 1
    for i, item in ipairs(call('LRANGE', LOG, 1, CHUNK - 1)) do
      if now - struct.unpack('>I8', item, 2) <= HISTORY_TTL then
        break
      end
      old = i + 1
    end
    drop_first(old)
    left = left - CHUNK
  end
end

-- Entries of the log from `low` to `high`, from one end on, until they are more than `most` bytes: in their order.
local function read_log(low, high, is_forward, most)
  local parts, bytes, READ = {}, 0, 32
  while low <= high and bytes <= most do
    local from = is_forward and low or math.max(low, high - READ + 1)
    local part = call('LRANGE', LOG, from, math.min(from + READ - 1, high))
    for _, item in ipairs(part) do
      bytes = bytes + #item
    end
    if is_forward then
      low = from + READ
      parts[#parts + 1] = part
    else
      high = from - 1
      table.insert(parts, 1, part)
    end
  end
  local items = {}
  for _, part in ipairs(parts) do
    for _, item in ipairs(part) do
      items[#items + 1] = item
    end
  end
  return items
end

-- The first event that is kept; top + 1 if none is.
local function first_seq()
  return top - len + 1
end
