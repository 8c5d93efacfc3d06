-- Keeps a revocation; a narrower one does not undo a wider one.
--
-- KEYS: the subject's. ARGV: tokens issued until then are bad (ms; may be more than Lua's numbers hold), ms to keep.
local known = redis.call('GET', KEYS[1])
local before = ARGV[1]
if known and (#known > #before or (#known == #before and known > before)) then
  before = known
end
redis.call('SET', KEYS[1], before, 'PX', ARGV[2])
return 0
