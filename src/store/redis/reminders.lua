-- What the scripts on reminders share; stands in front of each.
--
-- KEYS: 1 sorted set by the time at which they are due: number within the plan, a colon, meeting. 2 hash by meeting: what
-- is the same in all reminders of a plan, how each is called, how many wait.
local call = redis.call
local DUE, PLANS = KEYS[1], KEYS[2]

local function find_plan(meeting)
  local plan = call('HGET', PLANS, meeting)
  return plan and cmsgpack.unpack(plan)
end

local function drop_plan(meeting, plan)
  for i = 1, #plan.names do
    call('ZREM', DUE, i .. ':' .. meeting)
  end
  call('HDEL', PLANS, meeting)
end

-- How many wait, and when the first is due ('': never).
local function state()
  local count = call('ZCARD', DUE)
  if count == 0 then
    -- Plans are left over only if the other key was lost alone.
    call('UNLINK', PLANS)
  end
  return count, call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2] or ''
end
