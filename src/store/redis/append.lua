-- Logs an event and publishes it.
--
-- ARGV, from 8: kind, author, message or '', content without its opening brace, where in that the erasable begins (from 1;
-- 0: nowhere), channel, and of what is published: what is in front of seq, the content, what is in front of the seq that
-- is for us. Then, from 16:
--   message: client_id or '', fingerprint, message that is replied to or ''
--   edit and deletion: whether by a moderator
--   reaction: emoji, whether it is taken back
--   update: event id
-- Returns whether it was logged, message, seq, epoch, time, version or count, author who is replied to; or a refusal.
local KIND, AUTHOR, ID, CONTENT, ERASABLE = tonumber(ARGV[8]), ARGV[9], ARGV[10], ARGV[11], tonumber(ARGV[12])
local EDITABLE = DAY
local EMOJI_MAX = 20
local SENT_KEPT = 1000
local UPDATES_KEPT = 16
local REMEMBERED = 600000

-- Once it stands in the log.
local json

local function answer(is_logged, id, seq, ts, extra, reply_author)
  return { is_logged, id, seq, epoch, ts, extra or 0, reply_author or '' }
end

-- Puts the event on top of the log. `extra`: the name of a further field, and its value.
local function log(emoji, name, extra)
  -- A clock may be set back; a log's order is the order of its times.
  local ts = math.max(now, last_ts)
  top, last_ts = top + 1, ts
  if KIND == 0 then
    total = total + 1
  end
  local fields = '"seq":' .. int(top) .. ',"epoch":"' .. epoch .. '","ts":' .. int(ts) .. ','
  if ID ~= '' then
    fields = '"id":"' .. ID .. '",' .. fields
  end
  if name then
    fields = fields .. '"' .. name .. '":' .. int(extra) .. ','
  end
  json = '{' .. fields .. CONTENT
  local item = struct.pack(ITEM, KIND, ts, total, extra or 0, ERASABLE, #ID, ID, #AUTHOR, AUTHOR, #emoji, emoji)
  len = call('RPUSH', LOG, item .. CONTENT)
  call('HSET', META, 's', top, 't', ts, 'n', total)
  if top == 1 then
    keep(META, META_KEPT)
  end
  if len == 1 then
    -- Nothing is in the log beside it; the list may have been lost alone.
    call('UNLINK', MESSAGES, REACTIONS)
  end
  keep(LOG, LOG_KEPT)
end

local function publish(name, extra)
  local pack = cmsgpack.pack
  local fields = pack(top) .. pack('epoch') .. pack(epoch) .. pack('ts') .. pack(last_ts)
  if name then
    fields = fields .. pack(name) .. pack(extra)
  end
  local ours = pack(top) .. pack('e') .. pack(epoch) .. pack('k') .. pack(KIND) .. pack('j') .. pack(json)
  call('PUBLISH', ARGV[13], ARGV[14] .. fields .. ARGV[15] .. ARGV[16] .. ours)
end

-- What is remembered by `id` in a key: a hash with the `client_id`s or event ids (c…) and their order (q…, from h + 1 to t).
local function recall(key, id)
  local known = call('HMGET', key, 'b', 'h', 't', 'c' .. id)
  local recent = { key = key, id = id, head = tonumber(known[2]) or 0, tail = tonumber(known[3]) or 0 }
  if known[1] ~= birth then
    -- Of another log.
    recent.head, recent.tail, recent.is_stale = 0, 0, known[1]
  elseif known[4] then
    local number, seq, ts, print, of = string.match(known[4], '^(%d+) (%d+) (%d+) (%S*) (%S*)$')
    recent.number, recent.seq, recent.ts = tonumber(number), tonumber(seq), tonumber(ts)
    recent.print, recent.of = print, of
  end
  return recent
end

-- Whether it is remembered: for its time, and among the last.
local function is_remembered(recent, among)
  local number = recent.number
  return number and (number > recent.tail - among or now - recent.ts <= REMEMBERED)
end

local function remember(recent, among, print)
  local key = recent.key
  if recent.is_stale then
    call('UNLINK', key)
  end
  local head, tail = recent.head, recent.tail + 1
  local entry = int(tail) .. ' ' .. int(top) .. ' ' .. int(last_ts) .. ' ' .. print .. ' ' .. ID
  call('HSET', key, 'b', birth, 't', tail, 'q' .. int(tail), recent.id, 'c' .. recent.id, entry)
  -- A hundred at a time are more than come.
  local oldest = head
  while tail - oldest > among and oldest - head < CHUNK do
    local name = 'q' .. int(oldest + 1)
    local id = call('HGET', key, name)
    local old = id and call('HGET', key, 'c' .. id)
    local number, ts = string.match(old or '', '^(%d+) %d+ (%d+) ')
    if tonumber(number) == oldest + 1 then
      if now - tonumber(ts) <= REMEMBERED then
        break
      end
      call('HDEL', key, name, 'c' .. id)
    else
      call('HDEL', key, name)
    end
    oldest = oldest + 1
  end
  if oldest > head then
    call('HSET', key, 'h', oldest)
  end
end

-- A message that is in the log.
local function read_message(id)
  return id ~= '' and call('HGET', MESSAGES, id)
end

local function parse_message(packed)
  if not packed then
    return nil
  end
  local m = { edits = {} }
  local at
  m.seq, m.ts, m.last_seq, m.last_ts, m.version, m.deleted_seq, m.deleted_ts, m.author, at =
    struct.unpack(MESSAGE, packed)
  if m.seq < first_seq() then
    return nil
  end
  while at <= #packed do
    m.edits[#m.edits + 1], at = struct.unpack('>I8', packed, at)
  end
  return m
end

local function write_message(id, m)
  local packed = { struct.pack(MESSAGE, m.seq, m.ts, m.last_seq, m.last_ts, m.version, m.deleted_seq, m.deleted_ts,
    #m.author, m.author) }
  for _, seq in ipairs(m.edits) do
    packed[#packed + 1] = struct.pack('>I8', seq)
  end
  call('HSET', MESSAGES, id, table.concat(packed))
  keep(MESSAGES, LOG_KEPT)
end

-- Erases the texts of a message from one of its events, if that is in the log.
local function erase(seq)
  local index = seq - first_seq()
  local item = index >= 0 and call('LINDEX', LOG, index)
  if not item then
    return
  end
  local kind, ts, of, extra, from, id, author, emoji, at = struct.unpack(ITEM, item)
  if from > 0 then
    local kept = string.sub(item, at, at + from - 2)
    local head = struct.pack(ITEM, kind, ts, of, extra, 0, #id, id, #author, author, #emoji, emoji)
    call('LSET', LOG, index, head .. kept .. '"text":"","deleted":true}')
  end
end

local function is_closed()
  return closes_at and closes_at <= now
end

local function send()
  local client_id, print, reply_to = ARGV[17], ARGV[18], ARGV[19]
  local recent = client_id ~= '' and recall(base .. ':sent:' .. AUTHOR, client_id)
  local own, target, mark = read_message(ID), read_message(reply_to), find_mark(AUTHOR)
  trim()
  own, target = parse_message(own), parse_message(target)
  local reply_author = target and target.author

  -- Before anything else: whoever asks again wants to know what became of it then.
  if recent and is_remembered(recent, SENT_KEPT) then
    if recent.of == ID then
      -- The same call came twice: it may not have been answered.
      return answer(1, ID, recent.seq, recent.ts, 0, reply_author)
    elseif recent.print == print then
      return answer(0, recent.of, recent.seq, recent.ts, 0, reply_author)
    end
    return 'client_id_reused'
  end
  if own and own.author == AUTHOR then
    return answer(1, ID, own.seq, own.ts, 0, reply_author)
  end
  if is_closed() then
    return 'closed'
  end
  if reply_to ~= '' and (not target or target.deleted_seq > 0) then
    return 'no_reply_target'
  end

  log('')
  write_message(ID, { seq = top, ts = last_ts, last_seq = top, last_ts = last_ts, version = 0, deleted_seq = 0,
    deleted_ts = 0, author = AUTHOR, edits = {} })
  if mark then
    call('HSET', MARKS, AUTHOR, pack_mark(mark.seq, mark.total_at, mark.own + 1, mark.moved_at))
  end
  if recent then
    remember(recent, SENT_KEPT, print)
    if keep(recent.key, LOG_KEPT) then
      redis.pcall('SADD', AUTHORS, AUTHOR)
      call('PEXPIRE', AUTHORS, LOG_KEPT)
    end
  end
  local seq, ts = top, last_ts
  publish()
  trim()
  return answer(1, ID, seq, ts, 0, reply_author)
end

local function edit()
  local is_moderator = ARGV[17] == '1'
  local message = read_message(ID)
  trim()
  message = parse_message(message)
  if not message then
    return 'no_message'
  elseif is_closed() then
    return 'closed'
  elseif not is_moderator and (message.author ~= AUTHOR or now - message.ts > EDITABLE) then
    return 'not_allowed'
  elseif message.deleted_seq > 0 then
    return 'deleted'
  end

  message.version = message.version + 1
  log('', 'version', message.version)
  message.last_seq, message.last_ts = top, last_ts
  message.edits[#message.edits + 1] = top
  write_message(ID, message)
  publish('version', message.version)
  trim()
  return answer(1, ID, top, last_ts, message.version)
end

local function delete()
  local is_moderator = ARGV[17] == '1'
  local message = read_message(ID)
  trim()
  message = parse_message(message)
  if not message then
    return 'no_message'
  end
  local may_delete = is_moderator or message.author == AUTHOR
  if message.deleted_seq > 0 and may_delete then
    return answer(0, ID, message.deleted_seq, message.deleted_ts)
  elseif is_closed() then
    return 'closed'
  elseif not may_delete then
    return 'not_allowed'
  end

  erase(message.seq)
  for _, seq in ipairs(message.edits) do
    erase(seq)
  end
  log('')
  message.deleted_seq, message.deleted_ts = top, last_ts
  message.last_seq, message.last_ts = top, last_ts
  message.edits = {}
  write_message(ID, message)
  publish()
  trim()
  return answer(1, ID, top, last_ts)
end

-- Of a message in `:reactions`, behind its id: k how many different emoji, n… how often one, u… who and when.
local function react()
  local emoji, is_removal = ARGV[17], ARGV[18] == '1'
  local user, count_of = ID .. 'u' .. #emoji .. ':' .. emoji .. AUTHOR, ID .. 'n' .. emoji
  local message = read_message(ID)
  local known = call('HMGET', REACTIONS, user, count_of, ID .. 'k')
  trim()
  message = parse_message(message)
  if not message then
    return 'no_message'
  elseif is_closed() then
    return 'closed'
  elseif message.deleted_seq > 0 then
    return 'deleted'
  end
  local done, count, different = known[1], tonumber(known[2]) or 0, tonumber(known[3]) or 0
  if is_removal and not done then
    return answer(0, ID, message.last_seq, message.last_ts)
  elseif not is_removal and done then
    local seq, ts = string.match(done, '^(%d+) (%d+)$')
    return answer(0, ID, tonumber(seq), tonumber(ts))
  elseif not is_removal and count == 0 and different >= EMOJI_MAX then
    return 'too_many_reactions'
  end

  count = count + (is_removal and -1 or 1)
  log(emoji, 'count', count)
  if is_removal then
    call('HDEL', REACTIONS, user)
    if count > 0 then
      call('HSET', REACTIONS, count_of, count)
    else
      call('HDEL', REACTIONS, count_of)
      call('HSET', REACTIONS, ID .. 'k', different - 1)
    end
  else
    call('HSET', REACTIONS, user, int(top) .. ' ' .. int(last_ts), count_of, count)
    if count == 1 then
      call('HSET', REACTIONS, ID .. 'k', different + 1)
    end
  end
  keep(REACTIONS, LOG_KEPT)
  message.last_seq, message.last_ts = top, last_ts
  write_message(ID, message)
  publish('count', count)
  trim()
  return answer(1, ID, top, last_ts, count)
end

local function update()
  local recent = recall(UPDATES, ARGV[17])
  trim()
  if is_remembered(recent, UPDATES_KEPT) then
    return answer(0, '', recent.seq, recent.ts)
  end
  log('')
  remember(recent, UPDATES_KEPT, '')
  keep(UPDATES, LOG_KEPT)
  publish()
  trim()
  return answer(1, '', top, last_ts)
end

begin()
return (({ [0] = send, edit, delete, react, update })[KIND])()
