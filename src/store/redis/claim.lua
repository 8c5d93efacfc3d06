-- Claims a key. KEYS: 1 the key. ARGV: now, how long, a word that is the caller's only. Returns whether it is the caller's.
local now, ttl = tonumber(ARGV[1]), tonumber(ARGV[2])
local held, by = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (.*)$')
if held and now < tonumber(held) then
  return by == ARGV[3] and 1 or 0
end
-- The key outlives the claim: whose clock is behind must find it.
redis.call('SET', KEYS[1], string.format('%.0f %s', now + ttl, ARGV[3]), 'PX', ttl + 60000)
return 1
