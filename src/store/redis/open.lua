-- What somebody who joins gets, and their mark.
--
-- ARGV, from 8: reader or '', whether a position is given, its epoch and seq, most events, of how many bytes about.
-- Returns epoch, top, first seq, how the position was found (0: none given, 1 all is there, 2 another epoch, 3 not kept any
-- more, 4 too much), the seq before the first event, events.
local READER, HAS_SINCE, SINCE_EPOCH, SINCE = ARGV[8], ARGV[9] == '1', ARGV[10], tonumber(ARGV[11])
local LIMIT, MAX_BYTES = tonumber(ARGV[12]), tonumber(ARGV[13])

begin()
local is_new = READER ~= '' and not find_mark(READER)
trim()
local first = first_seq()
local found, count = 0, math.min(LIMIT, top)
if HAS_SINCE then
  count = top - SINCE
  if SINCE_EPOCH ~= epoch or count < 0 then
    found, count = 2, 0
  elseif count > 0 and SINCE + 1 < first then
    found, count = 3, 0
  elseif count > LIMIT then
    found, count = 4, 0
  else
    found = 1
  end
end
if is_new then
  call('HSET', MARKS, READER, pack_mark(top, total, 0, now))
  keep(MARKS, META_KEPT)
end
local after = math.max(top - count, first - 1)
local items = {}
if after < top then
  items = read_log(after + 1 - first, len - 1, false, MAX_BYTES)
  if #items < top - after then
    if found == 1 then
      found, items = 4, {}
    end
    after = top - #items
  end
end
return { epoch, top, first, found, after, items }
