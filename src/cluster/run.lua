-- Which server process the database runs on, and whether all instances that may know more than it have looked.
--
-- After a restart or a failover the database may have lost its last writes. Until every instance that was alive has
-- compared what it knows (or has had its time), nothing is appended; if one did not look, `life` rises, and logs that
-- are then appended to get another epoch.
--
-- KEYS: run, instances, checked, expected. ARGV: instance, whether it has looked (0/1), how long to wait in ms, lapse in ms,
-- the run id of the server that it has looked at.
-- Returns open (0/1), life.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if id ~= ARGV[5] then
  -- It was meant for the connection before.
  return { 0, 0 }
end
local known = redis.call('HGET', KEYS[1], 'id')
if known ~= id then
  -- In an empty database nothing can be lost that is not seen to be: its logs are all new.
  redis.call('HSET', KEYS[1], 'id', id, 'since', now, 'open', known and 0 or 1)
  redis.call('HINCRBY', KEYS[1], 'life', 0)
  redis.call('DEL', KEYS[3], KEYS[4])
  -- Those that were alive when the server was last written to, however long ago that was.
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if last[2] then
    for _, instance in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], tonumber(last[2]) - tonumber(ARGV[4]), '+inf')) do
      redis.call('SADD', KEYS[4], instance)
    end
  end
end
if ARGV[2] == '1' then
  redis.call('SADD', KEYS[3], ARGV[1])
end
local run = redis.call('HMGET', KEYS[1], 'since', 'open', 'life')
local open, life = tonumber(run[2]), tonumber(run[3])
if open == 0 then
  if ARGV[2] == '1' and #redis.call('SDIFF', KEYS[4], KEYS[3]) == 0 then
    open = 1
  elseif now - tonumber(run[1]) > tonumber(ARGV[3]) then
    open = 1
    life = redis.call('HINCRBY', KEYS[1], 'life', 1)
  end
  redis.call('HSET', KEYS[1], 'open', open)
end
return { open, life }
