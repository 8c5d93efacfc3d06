-- Replaces a meeting's reminders.
--
-- ARGV: meeting, when it begins, recipients ('': as before), title ('': as before), then time and name of each.
-- Returns how many wait, and when the first is due.
local MEETING = ARGV[1]

local replaced = find_plan(MEETING)
if replaced then
  drop_plan(MEETING, replaced)
end
local plan = { starts_at = ARGV[2], recipients = ARGV[3], title = ARGV[4], names = {}, left = 0 }
if plan.recipients == '' then
  plan.recipients = replaced and replaced.recipients or ''
end
if plan.title == '' then
  plan.title = replaced and replaced.title or ''
end
for i = 5, #ARGV, 2 do
  plan.names[#plan.names + 1] = ARGV[i + 1]
  call('ZADD', DUE, ARGV[i], #plan.names .. ':' .. MEETING)
end
plan.left = #plan.names
if plan.left > 0 then
  call('HSET', PLANS, MEETING, cmsgpack.pack(plan))
end
return { state() }
