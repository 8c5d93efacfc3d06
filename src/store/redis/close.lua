-- Sets when a meeting becomes read-only. ARGV, from 8: the time or ''. Returns what was set before, or ''.
local before = call('HGET', META, 'c')
if ARGV[8] ~= '' then
  call('HSET', META, 'c', ARGV[8])
  keep(META, META_KEPT)
elseif before then
  call('HDEL', META, 'c')
end
return before or ''
