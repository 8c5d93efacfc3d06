-- Notes a user's sockets at one instance, or that there are none, and tells the meeting's other instances.
--
-- KEYS: the meeting's presence. ARGV: field, value ('' for none), ms to keep, channel, payload.
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
if ARGV[4] ~= '' then
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 0
