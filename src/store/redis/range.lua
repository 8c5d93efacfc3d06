-- A page of a log.
--
-- ARGV, from 8: epoch that it must be or '', where to begin (top, before or after), seq, most events, the digits of the
-- kinds that are wanted ('': all), of how many bytes about.
-- Returns epoch, top, first seq, whether there are more, seqs, events; or a refusal.
local EPOCH, FROM, SEQ, LIMIT, KINDS = ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local MAX_BYTES = tonumber(ARGV[13])

begin()
trim()
if EPOCH ~= '' and EPOCH ~= epoch then
  return 'epoch_differs'
end
local first = first_seq()
local low, high = first, top
if FROM == 'before' then
  high = math.min(high, SEQ - 1)
elseif FROM == 'after' then
  low = math.max(low, SEQ + 1)
end
local is_wanted = {}
for digit in string.gmatch(KINDS, '%d') do
  is_wanted[tonumber(digit)] = true
end

-- Event by event only if some are not wanted.
local seqs, items, has_more, bytes = {}, {}, false, 0
if KINDS == '' then
  local count = math.min(LIMIT, math.max(high - low + 1, 0))
  has_more = high - low + 1 > count
  local from = FROM == 'after' and low or high - count + 1
  if count > 0 then
    items = read_log(from - first, from - first + count - 1, FROM == 'after', MAX_BYTES)
  end
  if #items < count then
    has_more = true
    from = FROM == 'after' and from or from + count - #items
  end
  for i = 1, #items do
    seqs[i] = from + i - 1
  end
elseif FROM == 'after' then
  while low <= high and not has_more do
    for i, item in ipairs(call('LRANGE', LOG, low - first, math.min(low + CHUNK - 1, high) - first)) do
      if is_wanted[string.byte(item)] then
        if #items == LIMIT or bytes > MAX_BYTES then
          has_more = true
          break
        end
        seqs[#seqs + 1], items[#items + 1], bytes = low + i - 1, item, bytes + #item
      end
    end
    low = low + CHUNK
  end
else
  while low <= high and not has_more do
    local from = math.max(low, high - CHUNK + 1)
    local chunk = call('LRANGE', LOG, from - first, high - first)
    for i = #chunk, 1, -1 do
      if is_wanted[string.byte(chunk[i])] then
        if #items == LIMIT or bytes > MAX_BYTES then
          has_more = true
          break
        end
        seqs[#seqs + 1], items[#items + 1], bytes = from + i - 1, chunk[i], bytes + #chunk[i]
      end
    end
    high = from - 1
  end
  for i = 1, math.floor(#items / 2) do
    local j = #items - i + 1
    items[i], items[j], seqs[i], seqs[j] = items[j], items[i], seqs[j], seqs[i]
  end
end
return { epoch, top, first, has_more and 1 or 0, seqs, items }
