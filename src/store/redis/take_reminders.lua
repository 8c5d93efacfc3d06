-- Takes reminders that are due, those that are due for longest first.
--
-- ARGV: now, most reminders. Returns how many wait, when the first is due, and of each meeting, beginning, name, time,
-- recipients, title.
local taken = {}
local due = call('ZRANGEBYSCORE', DUE, '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #due, 2 do
  call('ZREM', DUE, due[i])
  local number, meeting = string.match(due[i], '^(%d+):(.*)$')
  local plan = meeting and find_plan(meeting)
  if plan then
    local name = plan.names[tonumber(number)] or ''
    taken[#taken + 1] = { meeting, plan.starts_at, name, due[i + 1], plan.recipients, plan.title }
    plan.left = plan.left - 1
    if plan.left > 0 then
      call('HSET', PLANS, meeting, cmsgpack.pack(plan))
    else
      call('HDEL', PLANS, meeting)
    end
  end
end
local count, first = state()
return { count, first, taken }
