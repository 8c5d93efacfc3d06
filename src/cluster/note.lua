-- Tells all instances something that none may miss: those that cannot hear it now find it when they can.
--
-- KEYS: the last notes, a stream. ARGV: how many to keep, for how many ms, instance, note, channel, payload.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'from', ARGV[3], 'note', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 0
