-- What is noted of a participant by others. KEYS: 1 a set of users, or a hash of users and their rights. ARGV: user.
-- Returns the right, 'write' from a set, '' if there is none.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'set' then
  return redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 and 'write' or ''
elseif kind == 'hash' then
  return redis.call('HGET', KEYS[1], ARGV[1]) or ''
end
return ''
