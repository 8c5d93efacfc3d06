-- Acknowledges entries, and drops what nobody needs any more: nobody else reads the stream, and those who add need not say
-- how long it may get.
--
-- KEYS: the stream. ARGV: group, entries, the last one at the end.
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
if #redis.call('XINFO', 'GROUPS', KEYS[1]) == 1 then
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1)[1]
  redis.call('XTRIM', KEYS[1], 'MINID', '~', pending and pending[1] or ARGV[#ARGV])
end
return 0
