-- Puts a notification into an inbox, and publishes it.
--
-- ARGV, from 2: id, whether it is kept, when it is dropped (0: never), the payload's fields, channel, and of what is
-- published: what is in front of the number, the fields, what is in front of the payload that is for us.
-- Returns its number; 0 if it is there already, or was told lately.
local ID, IS_KEPT, EXPIRES, FIELDS = ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), ARGV[5]
-- For how long one that is not kept is known, and how many of them.
local TOLD_MS, TOLD_MAX = 60000, 8

load()
if call('HEXISTS', INBOX, 'i' .. ID) == 1 then
  return 0
end
if not IS_KEPT then
  local told = call('HGET', INBOX, 'o')
  local kept = { { ID, now } }
  for _, one in ipairs(told and cmsgpack.unpack(told) or {}) do
    if now - one[2] <= TOLD_MS then
      if one[1] == ID then
        return 0
      end
      if #kept < TOLD_MAX then
        kept[#kept + 1] = one
      end
    end
  end
  call('HSET', INBOX, 'o', cmsgpack.pack(kept))
end
last = last + 1
call('HSET', INBOX, 's', last)
if IS_KEPT then
  if len >= NOTES_MAX then
    local is_read, _, _, _, id = struct.unpack(NOTE, call('LPOP', NOTES))
    unread = unread - 1 + is_read
    call('HDEL', INBOX, 'i' .. id)
  end
  call('RPUSH', NOTES, struct.pack(NOTE, 0, last, now, EXPIRES, #ID, ID) .. FIELDS)
  local drop = dropped_at(now, EXPIRES)
  call('HSET', INBOX, 'u', unread + 1, 'x', math.min(next_drop or drop, drop), 'i' .. ID, 1)
end
keep_inbox()
local number = string.format('%.0f', last)
local json = '{"nseq":' .. number .. ',' .. FIELDS .. ',"read":false}'
local pack = cmsgpack.pack
call('PUBLISH', ARGV[6], ARGV[7] .. pack(last) .. ARGV[8] .. pack('read') .. pack(false) .. ARGV[9] .. pack(json))
return last
