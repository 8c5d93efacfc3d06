-- Forgets a meeting. Returns how many events it had.
begin()
trim()
local events = len
drop_contents()
call('UNLINK', META, MARKS)
return events
