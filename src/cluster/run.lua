-- Which server process the database runs on, and whether all instances that may know more than it have looked.
--
-- After a restart or a failover the database may have lost its last writes. Until every instance that was alive has
-- compared what it knows (or has had its time), nothing is appended; if one did not look, `life` rises, and logs that
-- are then appended to get another epoch.
--
-- KEYS: run, instances, checked, expected. ARGV: instance, whether it has looked (0/1), how long to wait in ms, lapse in ms,
-- the run id of the server that it has looked at, that of the server at which it was admitted before ('': none), its last
-- heartbeat there in ms, and the other instances that it knows of.
-- Returns open (0/1), life.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if id ~= ARGV[5] then
  -- It was meant for the connection before.
  return { 0, 0 }
end
local function raise_life()
  local life = math.max(now, (tonumber(redis.call('HGET', KEYS[1], 'life')) or 0) + 1)
  redis.call('HSET', KEYS[1], 'life', string.format('%.0f', life))
  return life
end
local known = redis.call('HGET', KEYS[1], 'id')
if known ~= id then
  -- In an empty database nothing can be lost that is not seen to be: its logs are all new.
  redis.call('HSET', KEYS[1], 'id', id, 'since', now, 'open', known and 0 or 1, 'has_gone_back', known and 0 or 1)
  -- Higher than any before, of which an emptied database knows nothing.
  redis.call('HSETNX', KEYS[1], 'life', now)
  redis.call('DEL', KEYS[3], KEYS[4])
  -- Those that were alive when the server was last written to, however long ago that was.
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if last[2] then
    for _, instance in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], tonumber(last[2]) - tonumber(ARGV[4]), '+inf')) do
      redis.call('SADD', KEYS[4], instance)
    end
  end
end
local is_of_before = ARGV[6] ~= '' and ARGV[6] ~= id
if is_of_before then
  -- What the database knows of who was alive may be older than they are.
  for i = 8, #ARGV do
    redis.call('SADD', KEYS[4], ARGV[i])
  end
  local beat_at = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if redis.call('HGET', KEYS[1], 'has_gone_back') ~= '1' and tonumber(beat_at or 0) < tonumber(ARGV[7]) then
    -- It has forgotten a heartbeat, and so maybe events that nobody is there to know of.
    redis.call('HSET', KEYS[1], 'has_gone_back', 1)
    raise_life()
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
    life = raise_life()
  end
  redis.call('HSET', KEYS[1], 'open', open)
elseif is_of_before and redis.call('SISMEMBER', KEYS[3], ARGV[1]) + redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 0 then
  -- Nobody knew that this one knows something: the others did not wait for it.
  redis.call('SADD', KEYS[3], ARGV[1])
  life = raise_life()
end
return { open, life }
