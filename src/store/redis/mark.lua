-- Moves a mark forward, or makes it.
--
-- ARGV, from 8: user, seq. Returns where it stands, and whether it moved.
local USER, SEQ = ARGV[8], tonumber(ARGV[9])

begin()
local mark = find_mark(USER)
trim()
local seq = math.min(SEQ, top)
if mark and mark.seq >= seq then
  return { mark.seq, 0 }
end

-- What is out of the log counts as read.
local first = first_seq()
seq = math.max(seq, first - 1)
local total_at, own = total, 0
if seq < top then
  local kind, _, up_to = struct.unpack('>BI8I8', call('LINDEX', LOG, seq + 1 - first))
  total_at = up_to - (kind == 0 and 1 or 0)
  -- Who had none above the old mark has none above the new one.
  local index = seq + 1 - first
  while index < len and not (mark and mark.own == 0) do
    for _, item in ipairs(call('LRANGE', LOG, index, index + CHUNK - 1)) do
      local kind, _, _, _, _, _, author = struct.unpack(ITEM, item)
      if kind == 0 and author == USER then
        own = own + 1
      end
    end
    index = index + CHUNK
  end
end
call('HSET', MARKS, USER, pack_mark(seq, total_at, own, now))
keep(MARKS, META_KEPT)
return { seq, 1 }
