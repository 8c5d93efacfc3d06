-- Drops a reminder that is done, unless the meeting's have been replaced.
--
-- ARGV: meeting, beginning, name. Returns how many wait, and when the first is due.
local MEETING = ARGV[1]

local plan = find_plan(MEETING)
if plan and plan.starts_at == ARGV[2] then
  for i = 1, #plan.names do
    if plan.names[i] == ARGV[3] and call('ZREM', DUE, i .. ':' .. MEETING) == 1 then
      plan.left = plan.left - 1
      if plan.left > 0 then
        call('HSET', PLANS, MEETING, cmsgpack.pack(plan))
      else
        call('HDEL', PLANS, MEETING)
      end
      break
    end
  end
end
return { state() }
