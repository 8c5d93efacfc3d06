-- Acknowledges what was taken and is too large to be read, so that it stands in nobody's way.
--
-- KEYS: the stream. ARGV: group, how many entries to look at, the most bytes of one. Returns how many were too large.
local count = 0
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[2])) do
  local id, size = pending[1], 0
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  for _, text in ipairs(entry and entry[2] or {}) do
    size = size + #text
  end
  if size > tonumber(ARGV[3]) then
    count = count + redis.call('XACK', KEYS[1], ARGV[1], id)
  end
end
return count
