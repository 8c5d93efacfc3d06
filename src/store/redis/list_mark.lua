-- Notes that there is a mark in a meeting.
--
-- ARGV, from 2: meeting, whether it has moved (else it may be listed already), most marks, how long they are kept.
-- Returns the meetings whose marks have to go.
local MEETING, HAS_MOVED, MARKS_MAX, KEPT = ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), tonumber(ARGV[5])

if not HAS_MOVED and call('ZSCORE', MARKS, MEETING) then
  return {}
end
local newest = call('ZRANGE', MARKS, -1, -1, 'WITHSCORES')
call('ZADD', MARKS, (tonumber(newest[2]) or 0) + 1, MEETING)
if call('PTTL', MARKS) < KEPT - DAY then
  call('PEXPIRE', MARKS, KEPT)
end
local displaced = {}
for i = 1, call('ZCARD', MARKS) - MARKS_MAX do
  displaced[i] = call('ZPOPMIN', MARKS)[1]
end
return displaced
