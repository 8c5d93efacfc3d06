-- One heartbeat of an instance that is admitted.
--
-- KEYS: run, instances. ARGV: instance, lapse in ms, the life that it was told.
-- Returns whether the instance was not listed, or not as alive (0/1), the time, then the instances that are alive.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 0 then
  -- The database was emptied under us: its next restart must be noticed all the same.
  local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  redis.call('HSET', KEYS[1], 'id', id, 'since', now, 'open', 1, 'life', ARGV[3])
end
local before = redis.call('ZSCORE', KEYS[2], ARGV[1])
-- One that was silent for too long has been taken off by the others.
local is_new = (not before or now - tonumber(before) > tonumber(ARGV[2])) and 1 or 0
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 4 * tonumber(ARGV[2]))
local alive = redis.call('ZRANGEBYSCORE', KEYS[2], now - tonumber(ARGV[2]), '+inf')
table.insert(alive, 1, is_new)
table.insert(alive, 2, now)
return alive
