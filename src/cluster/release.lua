-- Gives back what one instance does for all.
--
-- KEYS: the lease. ARGV: instance.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 0
