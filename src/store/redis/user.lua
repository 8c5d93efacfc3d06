-- What the scripts on a user share; stands in front of each.
--
-- KEYS: 1 what the names of the user's keys begin with. ARGV: 1 now, in ms.
--
-- Keys, each behind KEYS[1]:
--   :inbox  hash: s the last number that was given, u how many are unread, x when the next notification is to be dropped;
--           and i… the ids of those that are kept; o ids of the last that were not, and when they were told
--   :notes  list of notifications, ascending by number
--   :marks  sorted set of meetings in which there is a mark, those that were moved last at the end
local call = redis.call
local INBOX, NOTES, MARKS = KEYS[1] .. ':inbox', KEYS[1] .. ':notes', KEYS[1] .. ':marks'
local now = tonumber(ARGV[1])
local DAY = 86400000
-- How long a notification is kept, and the numbering of an inbox that is empty.
local NOTE_KEPT = 30 * DAY
local NOTES_MAX = 200

-- whether it is read, number, time, when it is dropped (0: never), id; behind it the payload's fields.
local NOTE = '>BI8I8I8I2c0'

local last, unread, next_drop, len

local function keep_inbox()
  call('PEXPIRE', INBOX, NOTE_KEPT + DAY)
  call('PEXPIRE', NOTES, NOTE_KEPT + DAY)
end

-- When a notification goes.
local function dropped_at(at, expires)
  local by_age = at + NOTE_KEPT + 1
  return expires > 0 and math.min(expires, by_age) or by_age
end

-- Drops what is past its time, and counts anew.
local function recount()
  local notes = call('LRANGE', NOTES, 0, -1)
  local kept, fields = {}, {}
  unread, next_drop = 0, nil
  for _, note in ipairs(notes) do
    local is_read, number, at, expires, id = struct.unpack(NOTE, note)
    last = math.max(last, number)
    local drop = dropped_at(at, expires)
    if now < drop then
      kept[#kept + 1] = note
      fields[#fields + 1], fields[#fields + 2] = 'i' .. id, 1
      unread = unread + 1 - is_read
      next_drop = math.min(next_drop or drop, drop)
    end
  end
  call('DEL', INBOX)
  call('HSET', INBOX, 's', last, 'u', unread, unpack(fields))
  if next_drop then
    call('HSET', INBOX, 'x', next_drop)
  end
  if #kept < #notes then
    call('DEL', NOTES)
    if #kept > 0 then
      call('RPUSH', NOTES, unpack(kept))
    end
  end
  len = #kept
  keep_inbox()
end

local function load()
  local inbox = call('HMGET', INBOX, 's', 'u', 'x')
  last, unread, next_drop = tonumber(inbox[1]) or 0, tonumber(inbox[2]) or 0, tonumber(inbox[3])
  len = call('LLEN', NOTES)
  -- One of the two keys may have been lost alone.
  if (next_drop and now >= next_drop) or (len > 0) ~= (next_drop ~= nil) then
    recount()
  end
end
