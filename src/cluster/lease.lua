-- Takes or renews what one instance does for all.
--
-- KEYS: the lease. ARGV: instance, ms. Returns whether it is this instance's (0/1).
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
