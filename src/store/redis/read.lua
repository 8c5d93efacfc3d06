-- Marks notifications as read.
--
-- ARGV, from 2: a number up to which they are read, then ids that are read. Returns how many are unread, and whether that
-- changed.
local UP_TO = tonumber(ARGV[2])

load()
local ids = {}
for i = 3, #ARGV do
  ids[ARGV[i]] = true
end
local before = unread
if unread > 0 then
  for i, note in ipairs(call('LRANGE', NOTES, 0, -1)) do
    local is_read, number, _, _, id = struct.unpack(NOTE, note)
    if is_read == 0 and (number <= UP_TO or ids[id]) then
      call('LSET', NOTES, i - 1, '\1' .. string.sub(note, 2))
      unread = unread - 1
    end
  end
end
if unread < before then
  call('HSET', INBOX, 'u', unread)
end
return { unread, unread < before and 1 or 0 }
