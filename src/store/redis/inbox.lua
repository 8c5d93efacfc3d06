-- A page of an inbox.
--
-- ARGV, from 2: where to begin (top, before or after), number, most notifications, whether only unread ones.
-- Returns whether there are more, how many are unread in the whole inbox, notifications.
local FROM, NUMBER, LIMIT, UNREAD_ONLY = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'

load()
local notes, page, has_more = call('LRANGE', NOTES, 0, -1), {}, false
local is_ascending = FROM == 'after'
local from, to, step = #notes, 1, -1
if is_ascending then
  from, to, step = 1, #notes, 1
end
for i = from, to, step do
  local is_read, number = struct.unpack('>BI8', notes[i])
  local is_there = FROM == 'top' or (is_ascending and number > NUMBER) or (FROM == 'before' and number < NUMBER)
  if is_there and not (UNREAD_ONLY and is_read == 1) then
    if #page == LIMIT then
      has_more = true
      break
    end
    page[#page + 1] = notes[i]
  end
end
if not is_ascending then
  for i = 1, math.floor(#page / 2) do
    local j = #page - i + 1
    page[i], page[j] = page[j], page[i]
  end
end
return { has_more and 1 or 0, unread, page }
