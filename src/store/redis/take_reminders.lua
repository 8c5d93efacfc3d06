-- Gives reminders that are due, those that are due for longest first, and puts them off: whoever is given them says when
-- they are done.
--
-- ARGV: now, until when they are put off, most reminders. Returns how many wait, when the first is due, and of each
-- meeting, beginning, name, time, recipients, title.
local taken = {}
local due = call('ZRANGEBYSCORE', DUE, '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for i = 1, #due, 2 do
  local number, meeting = string.match(due[i], '^(%d+):(.*)$')
  local plan = meeting and find_plan(meeting)
  if plan then
    local name = plan.names[tonumber(number)] or ''
    taken[#taken + 1] = { meeting, plan.starts_at, name, due[i + 1], plan.recipients, plan.title }
    call('ZADD', DUE, ARGV[2], due[i])
  else
    call('ZREM', DUE, due[i])
  end
end
local count, first = state()
return { count, first, taken }
