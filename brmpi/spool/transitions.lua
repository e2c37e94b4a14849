-- Every change of the spool's state, between which nobody sees anything: KEYS[1] is the prefix of all keys, ARGV[1] the
-- transition, the rest its arguments. Times are Redis's own. docs/spool.md draws the states.
if redis.replicate_commands then redis.replicate_commands() end  -- before Redis 7, scripts that ask for the time

local P, op = KEYS[1], ARGV[1]
local call = redis.call
local clock = call('TIME')
local now = clock[1] + clock[2] / 1e6

-- Seconds: of a running attempt's lease, until one is claimed, until a node is silent, that nobody was here or the
-- clock jumped, to hear of all nodes after a restart. `settings` may say otherwise.
local times = call('HMGET', P .. 'settings', 'lease', 'claim', 'silent', 'gap', 'hold', 'depth')
local LEASE, CLAIM, SILENT = tonumber(times[1] or 30), tonumber(times[2] or 10), tonumber(times[3] or 15)
local GAP, HOLD = tonumber(times[4] or 12), tonumber(times[5] or 20)
local EVENTS = 10000                         -- that are kept
local DEPTH = tonumber(times[6] or 1000)     -- kinds of jobs that are tried in one pass
local PAUSE = 8                              -- a second time lost or failed: 2, 4, … up to 2 ^ PAUSE seconds of delay
local QUICK = 60                             -- seconds: what is lost sooner, again and again, begins later and later
local MOST = 40                              -- jobs that are placed in one pass: others wait for its end
local TOP = 1e12                             -- jobs of one priority
local REMEMBERED = 30 * 86400                -- seconds that a submission's key is known

local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')  -- of this start of Redis

local function key(...) return P .. table.concat({...}, ':') end
local function stamp(t) return string.format('%.4f', t) end
local function job(id, field)  -- false where there is none, or where the record is no record
  local good, value = pcall(call, 'HGET', key('job', id), field)
  return good and type(value) ~= 'table' and value
end
local function set(id, ...) call('HSET', key('job', id), ...) end
local function number(id, field) return tonumber(job(id, field) or '0') or 0 end

local function event(kind, id, text)
  call('XADD', key('events'), 'MAXLEN', '~', EVENTS, '*', 'kind', kind, 'job', id or '', 'text', text or '')
end

local function tell(node, word, id, fence, tag)
  call('RPUSH', key('inbox', node), word .. ' ' .. id .. ' ' .. fence .. ' ' .. (tag or '-'))
end

local spool_name

local function label(id)  -- what processes of its attempts carry, before the fence
  spool_name = spool_name or call('GET', key('name')) or 'spool'
  return spool_name .. '-' .. id .. '.'
end

-- A job is in one of these sets, by its state: what is not over, and what is.
local function move(id, state, why, before)
  before = before or job(id, 'state')
  if before and before ~= state then call('ZREM', key('state', before), id) end
  call('ZADD', key('state', state), stamp(now), id)
  set(id, 'state', state, 'why', why or '', 'changed', stamp(now))
  event(state, id, why)
end

local over, release  -- defined below

local OPEN = {'waiting', 'queued', 'delayed', 'placed', 'running', 'ending'}
local HELD = {placed = true, running = true, ending = true}  -- states with slots

local function parts(text)  -- "slots memory" of an allocation, or nothing
  local slots, memory = string.match(text or '', '^(%d+) (%d+)$')
  return tonumber(slots), tonumber(memory)
end

local decoded = {}  -- needs, by the text that they are known by

local function needs(class)  -- or false, where that text cannot be read
  if decoded[class] == nil then
    local fine, need = pcall(cjson.decode, class)
    decoded[class] = fine and type(need) == 'table' and tonumber(need.ranks) and tonumber(need.threads)
      and tonumber(need.memory) and tonumber(need.limit) and type(need.tags) == 'table' and type(need.nodes) == 'table'
      and type(need.prefer) == 'table' and need or false
  end
  return decoded[class]
end

local function readable(id)  -- whether a job's record says what every transition needs, and its state
  local good, row = pcall(call, 'HMGET', key('job', id), 'state', 'class', 'score', 'fence', 'head', 'hosts', 'tag')
  if not good then return false end
  local state = row[1]
  if state == 'broken' then return false, state end
  if not (state and row[2] and tonumber(row[3]) and tonumber(row[4]) and needs(row[2])) then return false end
  if call('HEXISTS', key('job', id), 'spec') == 0 then return false end
  if HELD[state] then
    if not (row[5] and row[6] and row[7]) then return false end
    local held = call('HGETALL', key('alloc', id))
    for i = 2, #held, 2 do if not parts(held[i]) then return false end end
  end
  return true, state
end

local function spoil(id)  -- put a record that cannot be used aside; what waits for it is told
  for _, states in ipairs({OPEN, {'done', 'failed', 'cancelled'}}) do
    for _, state in ipairs(states) do call('ZREM', key('state', state), id) end
  end
  for _, set in ipairs({'ready', 'delayed', 'leases'}) do call('ZREM', key(set), id) end
  for _, class in ipairs(call('ZRANGE', key('classes'), 0, -1)) do
    if call('ZREM', key('ready', class), id) == 1 and call('EXISTS', key('ready', class)) == 0 then
      call('ZREM', key('classes'), class)
    end
  end
  if call('EXISTS', key('job', id)) == 1 then call('RENAME', key('job', id), key('aside', id)) end
  call('HSET', key('job', id), 'id', id, 'state', 'broken', 'why', 'its record cannot be read', 'changed', stamp(now))
  call('ZADD', key('state', 'broken'), stamp(now), id)
  for _, name in ipairs(call('HKEYS', key('alloc', id))) do tell(name, 'kill', id, '0', label(id)) end
  event('broken', id, 'its record cannot be read')
  over(id)
end

-- Whether a job's record can be used. One that cannot is put aside, and the rest goes on.
local function sound(id)
  local good, state = readable(id)
  if good or state == 'broken' then return good, state end
  if state == nil and call('EXISTS', key('job', id)) == 0 then  -- there is no such job, or only its record is missing
    local known = call('ZSCORE', key('ready'), id)
    for _, one in ipairs(OPEN) do known = known or call('ZSCORE', key('state', one), id) end
    if not known then return false end
  end
  spoil(id)
  return false
end

-- Do something with each of some jobs; one with which it cannot be done is put aside, and does not keep the others.
local function each(ids, what)
  for _, id in ipairs(ids) do
    if sound(id) and not pcall(what, id) then spoil(id) end
  end
end

---- queue --------------------------------------------------------------------------------------------------------

local function enqueue(id, score, class)
  score, class = score or job(id, 'score'), class or job(id, 'class')
  call('ZADD', key('ready'), score, id)
  call('ZADD', key('ready', class), score, id)
  call('ZADD', key('classes'), 'LT', score, class)
end

local function head(class)  -- first job of a class, which is forgotten where it has none
  local first = call('ZRANGE', key('ready', class), 0, 0, 'WITHSCORES')
  if first[1] then
    call('ZADD', key('classes'), first[2], class)
    return first[1], tonumber(first[2])
  end
  call('ZREM', key('classes'), class)
end

local function dequeue(id, class)  -- returns what is then the head of its class
  class = class or job(id, 'class')
  call('ZREM', key('ready'), id)
  call('ZREM', key('ready', class), id)
  return head(class)
end

---- nodes --------------------------------------------------------------------------------------------------------

-- Fields of a node's record. One that is no record is put aside: its agent makes it anew.
local function node(name, ...)
  local good, row = pcall(call, 'HMGET', key('node', name), ...)
  if good and not row.err then return row end
  call('RENAME', key('node', name), key('aside', 'node', name))
  return call('HMGET', key('node', name), ...)
end

local function nodes()
  local found = {}
  for _, name in ipairs(call('SMEMBERS', key('nodes'))) do
    local row = node(name, 'slots', 'free', 'memory', 'room', 'tags', 'state', 'drained', 'speed', 'shy')
    local tags = {}
    for word in string.gmatch(row[5] or '', '%S+') do tags[word] = true end
    found[#found + 1] = {name = name, slots = tonumber(row[1]) or 0, free = tonumber(row[2]) or 0,
      memory = tonumber(row[3]) or 0, room = tonumber(row[4]) or 0, tags = tags, speed = tonumber(row[8]) or 0,
      open = row[6] == 'up' and row[7] ~= '1' and (tonumber(row[9]) or now) <= now}
  end
  table.sort(found, function(a, b) return a.name < b.name end)
  return found
end

local function debit(name, slots, memory)
  call('HINCRBY', key('node', name), 'free', string.format('%d', -slots))
  if memory ~= 0 then call('HINCRBY', key('node', name), 'room', string.format('%d', -memory)) end
end

-- Which nodes a job may have, and how much it likes each: {place in `all`, liking}.
local function able(need, all, known)
  local words = table.concat
  local name = words(need.tags, ' ') .. '|' .. words(need.nodes, ' ') .. '|' .. words(need.prefer, ' ')
  if known[name] then return known[name] end
  local found = {}
  for at, node in ipairs(all) do
    local good = node.open
    for _, tag in ipairs(need.tags) do good = good and (node.tags[tag] or node.name == tag) end
    if good and #need.nodes > 0 then
      good = false
      for _, name in ipairs(need.nodes) do good = good or name == node.name or node.tags[name] end
    end
    if good then
      local liked = #need.prefer + 1
      for place = #need.prefer, 1, -1 do
        if node.tags[need.prefer[place]] or node.name == need.prefer[place] then liked = place end
      end
      found[#found + 1] = {at, liked}
    end
  end
  known[name] = found
  return found
end

local floor = math.floor

local function room(need, node)  -- ranks of a job that a node has place for
  local free = node.free
  if free <= 0 then return 0 end
  local ranks = need.threads == 1 and free or floor(free / need.threads)
  if need.memory > 0 then ranks = math.max(0, math.min(ranks, floor(node.room / need.memory))) end
  return ranks
end

local function suffices(need, all, known)
  local sum = 0
  for _, one in ipairs(able(need, all, known)) do sum = sum + room(need, all[one[1]]) end
  return sum >= need.ranks
end

-- Ranks of a job on nodes: {node, slots, memory} of each, or nil. One of the nodes that it likes best and that just
-- suffice, the fastest of these; else the fewest: those that it likes best first, and of these the roomiest.
local function fit(need, all, known)
  local wanted, sum, best, best_liked, best_ranks = need.ranks, 0, nil, math.huge, 0
  for _, one in ipairs(able(need, all, known)) do
    local node, liked = all[one[1]], one[2]
    local ranks = room(need, node)
    if ranks > 0 then
      sum = sum + ranks
      if liked < best_liked then best, best_liked = nil, liked end
      if liked == best_liked and ranks >= wanted and (not best or node.speed > best.speed
          or (node.speed == best.speed and ranks < best_ranks)) then
        best, best_ranks = node, ranks
      end
    end
  end
  if sum < wanted then return nil end
  if best then return {{best, wanted * need.threads, wanted * need.memory}} end
  local open = {}
  for _, one in ipairs(able(need, all, known)) do
    local ranks = room(need, all[one[1]])
    if ranks > 0 then open[#open + 1] = {node = all[one[1]], ranks = ranks, liked = one[2]} end
  end
  table.sort(open, function(a, b)
    if a.liked ~= b.liked then return a.liked < b.liked end
    if a.ranks ~= b.ranks then return a.ranks > b.ranks end
    return a.node.name < b.node.name
  end)
  local left, found = wanted, {}
  for _, one in ipairs(open) do
    if left > 0 then
      local ranks = math.min(left, one.ranks)
      found[#found + 1] = {one.node, ranks * need.threads, ranks * need.memory}
      left = left - ranks
    end
  end
  return found
end

-- What runs, by the time at which its limit ends it: {time, id, {node, slots, memory}…}.
local function endings()
  local ends = {}
  for state in pairs(HELD) do
    each(call('ZRANGE', key('state', state), 0, -1), function(id)
      local limit, started = number(id, 'limit'), tonumber(job(id, 'started') or '') or now
      local one = {limit > 0 and math.max(started + limit, now) or math.huge, id}
      local held = call('HGETALL', key('alloc', id))
      for i = 1, #held, 2 do
        local slots, memory = parts(held[i + 1])
        one[#one + 1] = {held[i], slots, memory}
      end
      ends[#ends + 1] = one
    end)
  end
  table.sort(ends, function(a, b) if a[1] ~= b[1] then return a[1] < b[1] end return a[2] < b[2] end)
  return ends
end

-- When a job that does not fit now would, if what runs ends at its limit: the time, and the nodes it would have. nil if
-- it never would.
local function reserved(need, all, known, ends)
  local function after(count)  -- nodes once so many have ended
    local copy, byname = {}, {}
    for place, node in ipairs(all) do
      local one = {}
      for name, value in pairs(node) do one[name] = value end
      copy[place], byname[node.name] = one, one
    end
    for i = 1, count do
      for place = 3, #ends[i] do
        local node = byname[ends[i][place][1]]
        if node then node.free, node.room = node.free + ends[i][place][2], node.room + ends[i][place][3] end
      end
    end
    return copy
  end
  local low, high = 1, #ends
  if high == 0 or not suffices(need, after(high), known) then return nil end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if suffices(need, after(middle), known) then high = middle else low = middle + 1 end
  end
  local then_all, kept, then_free = after(low), {}, {}
  for _, part in ipairs(fit(need, then_all, known)) do kept[part[1].name] = part end
  for _, node in ipairs(then_all) do then_free[node.name] = {node.free, node.room} end
  return {time = ends[low][1], kept = kept, free = then_free}
end

-- Whether a job that is let by cannot delay the one that waits at the head.
local function harmless(need, found, plan)
  if need.limit <= 0 then return false end
  if plan.time < math.huge and now + need.limit <= plan.time then return true end
  for _, part in ipairs(found) do
    local kept = plan.kept[part[1].name]
    if kept then
      local free = plan.free[part[1].name]
      if free[1] - part[2] < kept[2] or free[2] - part[3] < kept[3] then return false end
    end
  end
  for _, part in ipairs(found) do  -- what it takes is no longer there for others that are let by
    local free = plan.free[part[1].name]
    free[1], free[2] = free[1] - part[2], free[2] - part[3]
  end
  return true
end

local function place(id, class, found)  -- returns what is then the head of its class
  local fence, ranks = call('INCR', key('fence')), {}
  for order, part in ipairs(found) do
    debit(part[1].name, part[2], part[3])
    part[1].free, part[1].room = part[1].free - part[2], part[1].room - part[3]
    call('HSET', key('alloc', id), part[1].name, string.format('%d %d', part[2], part[3]))
    call('SADD', key('on', part[1].name), id)
    ranks[order] = string.format('%s %d %d', part[1].name, part[2], part[3])
  end
  set(id, 'fence', fence, 'head', found[1][1].name, 'hosts', table.concat(ranks, ','), 'tag',
    label(id) .. fence, 'placed', stamp(now), 'started', '')
  call('ZADD', key('leases'), stamp(now + CLAIM), id)
  move(id, 'placed', '', 'queued')
  tell(found[1][1].name, 'run', id, fence)
  return dequeue(id, class)
end

-- First job of a class that can be placed. What is in the queue and should not be is taken out of it: a pass must end.
local function next_of(class)
  while true do
    local id = head(class)
    if not id then return nil end
    local good, state = sound(id)
    if good and state == 'queued' then return id end
    call('ZREM', key('ready'), id)
    call('ZREM', key('ready', class), id)
  end
end

local function held()  -- why nothing may be placed, or nil
  local why = call('GET', key('paused'))
  if why then return why end
  local till = tonumber(call('GET', key('hold')) or '0')
  if till > now and call('SCARD', key('awaited')) > 0 then return 'Redis was restarted: nodes are to report first' end
end

-- One pass: first fit by priority, then age. The first job that does not fit gets a reservation; those behind it are
-- let by if they have a limit of time and cannot delay it.
local function pass()
  if DEPTH < 1 or held() then return end
  local all, free, known = nodes(), 0, {}
  for _, node in ipairs(all) do if node.open then free = free + math.max(0, node.free) end end
  if free <= 0 then return end
  local queue, plan, ends = {}, nil, nil
  local order = call('ZRANGE', key('classes'), 0, DEPTH - 1, 'WITHSCORES')
  for i = 1, #order, 2 do queue[#queue + 1] = {order[i], tonumber(order[i + 1])} end
  local refused = {}  -- needs, less their limit, that did not fit, or fit and were in the way: so will the next of them
  local first, placed = 1, 0
  while first <= #queue and free > 0 do
    if placed == MOST then return call('SET', key('more'), 1) end
    local class, need, found = queue[first][1], nil, nil
    first = first + 1
    local at = string.find(class, ',"limit":', 1, true)
    local shape = at and string.sub(class, 1, at)
    local before = shape and refused[shape]
    if before == 'late' then
      local limit = tonumber(string.match(class, '^[%d.e+]+', at + 9)) or 0
      if limit > 0 and now + limit <= plan.time then before = nil end
    end
    if not before then
      need = needs(class)
      found = need and fit(need, all, known)
      if not need then  -- needs that cannot be read: its jobs are put aside
        next_of(class)
        found = nil
      elseif not found then
        if shape then refused[shape] = 'never' end
        if not plan then
          ends = ends or endings()
          plan = reserved(need, all, known, ends)
        end
      elseif plan and not harmless(need, found, plan) then
        if shape then refused[shape] = 'late' end
        found = nil
      end
    end
    if found then
      local id = next_of(class)
      if id then
        local _, score = place(id, class, found)
        placed = placed + 1
        for _, part in ipairs(found) do free = free - part[2] end
        if score then  -- back into the order
          local at = first
          while at <= #queue and queue[at][2] < score do at = at + 1 end
          table.insert(queue, at, {class, score})
        end
      end
    end
  end
end

---- ends ---------------------------------------------------------------------------------------------------------

local ARRAY = '^(%d+)%-%d+$'

-- A job is over: those that wait for it, or for all of its array, go on or are cancelled; and so do those that wait for
-- these.
function over(first)
  local ids = {first}
  while #ids > 0 do
    local id = table.remove(ids)
    local state, base = job(id, 'state'), string.match(id, ARRAY)
    local waiting = call('SMEMBERS', key('after', id))
    call('DEL', key('after', id))
    if base and call('EXISTS', key('array', base)) == 1 then
      if state ~= 'done' or call('HINCRBY', key('array', base), 'open', -1) == 0 then
        for _, one in ipairs(call('SMEMBERS', key('after', base))) do waiting[#waiting + 1] = one end
        call('DEL', key('after', base))
      end
    end
    each(waiting, function(one)
      if job(one, 'state') ~= 'waiting' then return end
      if state ~= 'done' then
        set(one, 'ended', stamp(now))
        move(one, 'cancelled', 'job ' .. id .. ' is ' .. state)
        ids[#ids + 1] = one
      elseif call('HINCRBY', key('job', one), 'left', -1) <= 0 then
        move(one, 'queued')
        enqueue(one)
      end
    end)
  end
end

local function reopened(id, state)  -- a job of an array that was done is to be done again
  local base = state == 'done' and string.match(id, ARRAY)
  if base and call('EXISTS', key('array', base)) == 1 then call('HINCRBY', key('array', base), 'open', 1) end
end

local function ended(id, state, why)
  set(id, 'ended', stamp(now))
  call('ZREM', key('leases'), id)
  move(id, state, why)
  over(id)
end

local function delay(id, times, why)
  local due = now + 2 ^ math.min(times, PAUSE)
  call('ZADD', key('delayed'), stamp(due), id)
  set(id, 'due', stamp(due))
  move(id, 'delayed', why)
end

local function shy(name, why)  -- a node that could not begin a job has none for a while
  local times = call('HINCRBY', key('node', name), 'refusals', 1)
  call('HSET', key('node', name), 'shy', stamp(now + 2 ^ math.min(times, PAUSE)), 'trouble', why)
  event('node', '', name .. ' gets no jobs for a while: ' .. why)
end

local function settle(id)  -- what comes after an attempt of which nothing is left
  local result, code = job(id, 'result'), number(id, 'code')
  call('ZREM', key('leases'), id)
  call('DEL', key('alloc', id))
  if result == 'done' then return ended(id, 'done') end
  if job(id, 'cancel') == '1' then return ended(id, 'cancelled', 'as asked') end
  local why = job(id, 'last')
  if result == 'lost' then
    local losses = call('HINCRBY', key('job', id), 'losses', 1)
    if losses > number(id, 'cap') then
      return ended(id, 'failed', why .. ', for the ' .. losses .. '. time: its limit of that is ' .. number(id, 'cap'))
    end
    if losses == 1 or now - (tonumber(job(id, 'started') or '') or 0) > QUICK then
      move(id, 'queued', why)
      return enqueue(id)
    end
    return delay(id, losses - 1, why)
  end
  local failures = call('HINCRBY', key('job', id), 'failures', 1)
  if code == 2 or code == 124 or failures > number(id, 'retries') then return ended(id, 'failed', why) end
  delay(id, failures, why)
end

local function slots(name, count, memory)  -- free = slots - sum of what is allocated, always
  local free, room = tonumber(count) or 0, tonumber(memory) or 0
  for _, id in ipairs(call('SMEMBERS', key('on', name))) do
    local had = call('HGET', key('alloc', id), name)
    if had then
      local taken, bytes = parts(had)
      free, room = free - (taken or 0), room - (bytes or 0)
    else
      call('SREM', key('on', name), id)
    end
  end
  call('HSET', key('node', name), 'slots', count, 'memory', memory, 'free', free, 'room', room)
end

function release(id, name)
  local had = call('HGET', key('alloc', id), name)
  if not had then return end
  local taken, memory = parts(had)
  call('HDEL', key('alloc', id), name)
  call('SREM', key('on', name), id)
  if taken then return debit(name, -taken, -memory) end
  local row = node(name, 'slots', 'memory')  -- it was damaged
  slots(name, row[1] or 0, row[2] or 0)
end

local function freed(id)
  if call('EXISTS', key('alloc', id)) == 0 then settle(id) end
end

-- An attempt is over, or has to be: its nodes give their slots back as each says that nothing of it is left there.
local function stop(id, result, code, why, clean)
  set(id, 'result', result, 'code', code, 'last', why)
  call('ZREM', key('leases'), id)
  local fence, left = job(id, 'fence'), call('HKEYS', key('alloc', id))
  if clean then
    for _, name in ipairs(left) do release(id, name) end
  else
    move(id, 'ending', why)
    for _, name in ipairs(left) do tell(name, 'kill', id, fence, job(id, 'tag')) end
  end
  freed(id)
end

local function rebooted(name)  -- nothing that ran there before is left
  local ids = call('SMEMBERS', key('on', name))
  each(ids, function(id)
    local state = job(id, 'state')
    if state == 'running' or (state == 'placed' and job(id, 'head') == name) then
      stop(id, 'lost', 255, name .. ' was started anew', false)
    end
    if job(id, 'state') == 'ending' then
      release(id, name)
      freed(id)
    end
  end)
  for _, id in ipairs(ids) do
    if not HELD[job(id, 'state')] then release(id, name) end
  end
end

-- A running attempt whose lease ran out while its node could not be reached is there again: it goes on, if no node has
-- said that nothing of it is left, or has begun to see to that.
local function taken_back(id, fence, name)
  local row = call('HMGET', key('job', id), 'state', 'fence', 'head', 'result', 'cancel', 'hosts', 'accepted',
    'doomed')
  if row[1] ~= 'ending' or row[2] ~= fence or row[3] ~= name or row[4] ~= 'lost' then return false end
  if row[5] == '1' or row[7] == fence or row[8] == fence then return false end
  local _, commas = string.gsub(row[6] or '', ',', '')
  if #call('HKEYS', key('alloc', id)) ~= commas + 1 then return false end
  set(id, 'result', '')
  call('ZADD', key('leases'), stamp(now + LEASE), id)
  move(id, 'running', name .. ' was away')
  return true
end

---- transitions --------------------------------------------------------------------------------------------------

local ops = {}

-- Jobs, as JSON; returns their ids. Those of an array are one entry with `count`: ids <number>-0, <number>-1, …
function ops.submit(text)
  local ids, jobs = {}, cjson.decode(text)
  for _, one in ipairs(jobs) do  -- all of them, or none
    for _, id in ipairs(one.after or {}) do
      local count = call('HGET', key('array', id), 'count')
      if count and call('HGET', key('array', id), 'kept') ~= count then
        return redis.error_reply('SPOOL after ' .. id .. ': some of its jobs are forgotten, and how they ended')
      end
      if not count and not job(id, 'state') then
        return redis.error_reply('SPOOL after ' .. id .. ': there is no such job')
      end
    end
  end
  for _, one in ipairs(jobs) do
    local before = one.key and call('GET', key('key', one.key))
    if before then
      ids[#ids + 1] = before
    else
      local unmet, counted, failed = {}, {}, nil
      for _, id in ipairs(one.after or {}) do
        local function look(other)
          local state = job(other, 'state')
          if state == 'failed' or state == 'cancelled' or state == 'broken' then failed = failed or {other, state} end
          return state == 'done'
        end
        local row, met = call('HMGET', key('array', id), 'count', 'open'), nil
        if row[1] then  -- all of an array: one thing to wait for
          for i = 0, tonumber(row[1]) - 1 do look(id .. '-' .. i) end
          met = row[2] == '0'
        else
          met = look(id)
        end
        if not met and not counted[id] then counted[id], unmet[#unmet + 1] = true, id end
      end
      local base = tostring(call('INCR', key('seq')))
      local count, score = one.count or 0, (1000 - one.priority) * TOP + tonumber(base)
      if count > 0 then
        call('HSET', key('array', base), 'count', count, 'open', count, 'kept', count, 'key', one.key or '')
      end
      for i = 0, math.max(count, 1) - 1 do
        local id, at = base, score
        if count > 0 then id, at = base .. '-' .. i, score + i / 1e6 end
        at = string.format('%.7f', at)
        call('HSET', key('job', id), 'id', id, 'spec', one.spec, 'class', one.class, 'limit', one.limit,
          'priority', one.priority, 'retries', one.retries, 'cap', one.cap, 'score', at, 'fence', 0, 'attempt', 0,
          'name', one.name, 'submitted', stamp(now), 'index', count > 0 and i or '', 'left', #unmet,
          'key', one.key or '', 'after', table.concat(one.after or {}, ', '))
        if failed then
          set(id, 'ended', stamp(now))
          move(id, 'cancelled', 'job ' .. failed[1] .. ' is ' .. failed[2])
        elseif #unmet > 0 then
          for _, other in ipairs(unmet) do call('SADD', key('after', other), id) end
          move(id, 'waiting')
        else
          call('ZADD', key('state', 'queued'), stamp(now), id)
          set(id, 'state', 'queued', 'why', '', 'changed', stamp(now))
          enqueue(id, at, one.class)
        end
      end
      event('submitted', base, one.name)
      if one.key then call('SET', key('key', one.key), base, 'EX', REMEMBERED) end
      ids[#ids + 1] = base
    end
  end
  pass()
  return ids
end

-- The head's agent takes an attempt: returns the job's record, or nothing where it is no longer that attempt's turn.
function ops.started(id, fence, node)
  if job(id, 'state') ~= 'placed' or job(id, 'fence') ~= fence or job(id, 'head') ~= node then return {} end
  if call('EXISTS', key('paused')) == 1 or not sound(id) then return {} end
  call('HINCRBY', key('job', id), 'attempt', 1)
  set(id, 'started', stamp(now), 'result', '', 'code', '')
  call('ZADD', key('leases'), stamp(now + LEASE), id)
  move(id, 'running', '', 'placed')
  local record = call('HGETALL', key('job', id))
  if call('DEL', key('more')) == 1 then pass() end
  return record
end

-- An attempt's end, once: 'done', 'failed' or 'lost' (to go on from its checkpoint); 'refused' where its head could not
-- begin it. Returns 'late' where it is no longer its turn, 'unknown' where there is no such job.
function ops.finish(id, fence, result, code, why)
  local state = job(id, 'state')
  if not state then return 'unknown' end
  if job(id, 'fence') ~= fence or number(id, 'accepted') == tonumber(fence) then return 'late' end
  local name = job(id, 'head')
  if result == 'refused' then
    result = 'lost'
    if state == 'running' then shy(name, why) end
  elseif name then
    call('HDEL', key('node', name), 'refusals')
  end
  if state == 'ending' and job(id, 'result') == 'lost' then  -- it was given up, and nothing else has begun
    set(id, 'accepted', fence)
    if result == 'done' then  -- too early
      set(id, 'result', result, 'code', code, 'last', why)
    end  -- else: its nodes were told to kill it, and that is what it may have died of
    freed(id)
    return 'ok'
  end
  if state ~= 'running' then return 'late' end
  set(id, 'accepted', fence)
  stop(id, result, code, why, result == 'done')
  pass()
  return 'ok'
end

-- A node was told to end what is left of an attempt: whether it still is to. `alive`: it is the head, and that runs.
function ops.doomed(id, fence, name, alive)
  if job(id, 'state') == 'running' and job(id, 'fence') == fence then return 'no' end
  if alive == '1' and sound(id) and taken_back(id, fence, name) then return 'no' end
  if job(id, 'state') == 'ending' and job(id, 'fence') == fence then set(id, 'doomed', fence) end
  return 'yes'
end

-- A node's agent: nothing of this attempt is left there.
function ops.confirm(id, fence, node)
  if job(id, 'state') == 'broken' then
    release(id, node)
    pass()
    return 'ok'
  end
  if job(id, 'fence') ~= fence then return 'late' end
  if job(id, 'state') ~= 'ending' then return 'early' end
  release(id, node)
  freed(id)
  pass()
  return 'ok'
end

function ops.cancel(id)
  local state = job(id, 'state')
  if not state then return '' end
  if state == 'queued' then dequeue(id) end
  if state == 'delayed' then call('ZREM', key('delayed'), id) end
  if state == 'queued' or state == 'delayed' or state == 'waiting' then
    ended(id, 'cancelled', 'as asked')
    pass()
  elseif state == 'placed' then
    set(id, 'cancel', 1)
    stop(id, 'failed', '', 'cancelled before it began', true)
    pass()
  elseif state == 'running' then
    set(id, 'cancel', 1)
    event('asked', id, 'to be cancelled')
    tell(job(id, 'head'), 'stop', id, job(id, 'fence'))
  elseif state == 'ending' then
    set(id, 'cancel', 1)
  end
  return job(id, 'state')
end

-- A job that is over, once more from its checkpoint.
function ops.requeue(id)
  local state = job(id, 'state')
  if state ~= 'failed' and state ~= 'cancelled' and state ~= 'done' then return state or '' end
  reopened(id, state)
  set(id, 'cancel', 0, 'failures', 0, 'losses', 0, 'ended', '', 'result', '')
  move(id, 'queued', 'once more, as asked')
  enqueue(id)
  pass()
  return 'queued'
end

local function raise(id, fence)  -- numbers that were given out are not given out again
  local base = tonumber(string.match(id, '^%d+'))
  if base and tonumber(call('GET', key('seq')) or '0') < base then call('SET', key('seq'), base) end
  if tonumber(call('GET', key('fence')) or '0') < fence then call('SET', key('fence'), string.format('%d', fence)) end
end

-- Somebody has seen a later state than this: then something was lost, and nothing is placed until a person says so.
local function seen(about)
  local epoch, count = call('GET', key('epoch')), tonumber(call('GET', key('count')) or '0')
  if (about.epoch or '') == '' or call('SISMEMBER', key('epochs'), about.epoch) == 1 then return end
  local earlier = about.epochs or {}  -- of this spool, before losses that are known
  local why
  if epoch ~= about.epoch then
    why = 'this is not the Redis that the jobs up to ' .. about.seq .. ' were given to, or it was emptied'
  elseif count < about.count then
    why = 'Redis has lost the last ' .. string.format('%d', about.count - count) .. ' changes'
    local had = tonumber(call('GET', key('seq')) or '0')
    if had < about.seq then why = why .. ', jobs ' .. string.format('%d to %d', had + 1, about.seq) .. ' among them' end
  end
  raise(tostring(about.seq), about.fence)
  for _, one in ipairs(earlier) do
    if one ~= about.epoch then call('SADD', key(why and 'lost' or 'epochs'), one) end
  end
  if why then
    call('SADD', key('lost'), about.epoch)
    if not call('GET', key('paused')) then
      call('SET', key('paused'), why)
      event('paused', '', why)
    end
  end
end

-- A node's agent begins: what it has, and which attempts it knows of, "id fence" each.
function ops.register(name, text)
  local about = cjson.decode(text)
  seen(about)
  local before = node(name, 'boot')[1]
  call('SADD', key('nodes'), name)
  call('SREM', key('awaited'), name)
  call('HSET', key('node', name), 'name', name, 'boot', about.boot, 'agent', about.agent, 'tags', about.tags,
    'state', 'up', 'seen', stamp(now), 'speed', about.speed, 'address', about.address, 'run', run)
  call('HDEL', key('node', name), 'shy', 'refusals', 'trouble')
  slots(name, about.slots, about.memory)
  call('DEL', key('inbox', name))
  if before and before ~= about.boot then rebooted(name) end
  local mine = {}
  for _, word in ipairs(about.attempts) do mine[word] = true end
  each(call('SMEMBERS', key('on', name)), function(id)
    local row = call('HMGET', key('job', id), 'state', 'fence', 'head', 'tag', 'cancel')
    local state, fence, here = row[1], row[2], row[3] == name
    if state == 'running' and here and not mine[id .. ' ' .. fence] then
      stop(id, 'lost', 255, 'the agent on ' .. name .. ' lost it', false)  -- claimed, and not begun
    elseif state == 'placed' and here then
      tell(name, 'run', id, fence)
    elseif state == 'ending' then
      tell(name, 'kill', id, fence, row[4])
    elseif state == 'running' and here and row[5] == '1' then
      tell(name, 'stop', id, fence)
    end
  end)
  event('node', '', name .. ' is up')
  pass()
  return tostring(math.min(LEASE / 6, SILENT / 3, GAP / 2.4))  -- seconds between its signs of life
end

local function expired(id)  -- a lease ran out
  if job(id, 'state') ~= 'placed' then
    return stop(id, 'lost', 255, job(id, 'head') .. ' has not been heard of', false)
  end
  local name = job(id, 'head')  -- nobody took it: nothing has begun, and with another fence nothing can
  set(id, 'fence', call('INCR', key('fence')))
  for _, one in ipairs(call('HKEYS', key('alloc', id))) do release(id, one) end
  call('ZREM', key('leases'), id)
  if not held() then shy(name, 'it did not take job ' .. id) end
  move(id, 'queued', name .. ' did not take it')
  enqueue(id)
end

local function undelayed(id)
  call('ZREM', key('delayed'), id)
  move(id, 'queued', job(id, 'last'))
  enqueue(id)
end

local function shifted(by)  -- the clock jumped: what was to come in so many seconds still is
  for _, id in ipairs(call('ZRANGE', key('leases'), 0, -1)) do call('ZINCRBY', key('leases'), by, id) end
  for _, name in ipairs(call('SMEMBERS', key('nodes'))) do
    local row = node(name, 'state', 'shy')
    if row[1] == 'up' then call('HSET', key('node', name), 'seen', stamp(now)) end
    if by < 0 and tonumber(row[2] or '') then call('HSET', key('node', name), 'shy', stamp(row[2] + by)) end
  end
  if by < 0 then
    for _, id in ipairs(call('ZRANGE', key('delayed'), 0, -1)) do call('ZINCRBY', key('delayed'), by, id) end
    local till = tonumber(call('GET', key('hold')) or '')
    if till then call('SET', key('hold'), stamp(till + by)) end
    call('SET', key('tick'), stamp(now))
  end
end

local function tick()
  local before = tonumber(call('GET', key('tick')) or '')
  call('SET', key('tick'), stamp(now))
  if before and now - before > GAP then return shifted(now - before) end  -- nobody was here to renew, or the clock jumped
  local changed = call('DEL', key('more')) == 1
  for _, name in ipairs(call('SMEMBERS', key('nodes'))) do
    local row = node(name, 'state', 'seen', 'shy')
    if row[1] == 'up' and now - (tonumber(row[2]) or 0) > SILENT then
      call('HSET', key('node', name), 'state', 'silent')
      event('node', '', name .. ' is silent')
    end
    if row[3] and (tonumber(row[3]) or now) <= now then
      call('HDEL', key('node', name), 'shy', 'trouble')
      changed = true
    end
  end
  for _, due in ipairs({{'leases', expired}, {'delayed', undelayed}}) do
    local ids = call('ZRANGEBYSCORE', key(due[1]), '-inf', now)
    each(ids, due[2])
    changed = changed or #ids > 0
  end
  local till = tonumber(call('GET', key('hold')) or '0')
  if till > 0 and (till <= now or call('SCARD', key('awaited')) == 0) then
    call('DEL', key('hold'), key('awaited'))
    changed = true
  end
  if changed then pass() end
end

-- A node is there: its attempts' leases are renewed. Returns 'ok' or 'unknown', and the attempts that are not its own.
function ops.beat(name, agent, ...)
  local row = node(name, 'agent', 'state')
  if row[1] ~= agent then return {'unknown'} end
  call('HSET', key('node', name), 'seen', stamp(now), 'state', 'up')
  local said, listed = {'ok'}, {}
  for _, word in ipairs({...}) do
    local id, fence = string.match(word, '^(%S+) (%S+)$')
    listed[id] = true
    if sound(id) and ((job(id, 'state') == 'running' and job(id, 'fence') == fence and job(id, 'head') == name)
        or taken_back(id, fence, name)) then
      call('ZADD', key('leases'), stamp(now + LEASE), id)
    else
      said[#said + 1] = word
    end
  end
  tick()
  for _, id in ipairs(call('SMEMBERS', key('on', name))) do  -- again, as a message may be lost
    local _, state = readable(id)
    if state == nil and not listed[id] then spoil(id) end  -- what its agent runs, that will tell of
    if state == 'ending' or state == 'broken' then
      tell(name, 'kill', id, job(id, 'fence') or '0', job(id, 'tag') or label(id))
    elseif state == 'running' and job(id, 'cancel') == '1' and job(id, 'head') == name then
      tell(name, 'stop', id, job(id, 'fence'))
    end
  end
  if row[2] ~= 'up' then
    event('node', '', name .. ' is back')
    pass()
  end
  return said
end

-- An agent ends in good order: nothing is placed there until it is back.
function ops.leave(name, agent)
  if call('HGET', key('node', name), 'agent') == agent then
    call('HSET', key('node', name), 'state', 'silent')
    event('node', '', name .. ': its agent has ended')
  end
  return 'ok'
end

-- No new jobs for a node, or again; or, with 'gone', a person's word that nothing runs there any more.
function ops.drain(name, how)
  if call('SISMEMBER', key('nodes'), name) == 0 then return '' end
  call('HSET', key('node', name), 'drained', how == 'open' and '0' or '1')
  event('node', '', name .. ': ' .. how)
  if how == 'gone' then
    call('HSET', key('node', name), 'state', 'gone')
    call('HDEL', key('node', name), 'agent')
    rebooted(name)
  end
  pass()
  return how
end

-- An agent's own record of an attempt, running or over, of which this Redis may know less.
function ops.adopt(text)
  local one = cjson.decode(text)
  local id, fence, state = one.id, tonumber(one.fence), job(one.id, 'state')
  local had = number(id, 'fence')
  if state and had > fence then return 'late' end
  if state and had == fence then  -- known, as it was before: placed, perhaps, where it runs or has ended
    if number(id, 'accepted') == fence then return one.result and 'ok' or 'late' end
    if state == 'placed' then
      call('HINCRBY', key('job', id), 'attempt', 1)
      set(id, 'started', stamp(now), 'result', '', 'code', '')
      move(id, 'running', 'it was begun before')
    elseif state == 'ending' and not one.result then
      return taken_back(id, one.fence, job(id, 'head')) and 'ok' or 'late'
    elseif state ~= 'running' and state ~= 'ending' then
      return 'late'
    end
    if one.result then return ops.finish(id, one.fence, one.result, one.code, one.why) end
    call('ZADD', key('leases'), stamp(now + LEASE), id)
    return 'ok'
  end
  reopened(id, state)
  if state == 'queued' then dequeue(id) end
  if state == 'delayed' then call('ZREM', key('delayed'), id) end
  for _, name in ipairs(call('HKEYS', key('alloc', id))) do release(id, name) end
  for name, value in pairs(one.record) do set(id, name, value) end
  set(id, 'fence', one.fence, 'started', stamp(now))
  raise(id, fence)
  if one.result then  -- it is over, and that was lost
    set(id, 'accepted', one.fence, 'result', one.result, 'code', one.code, 'last', one.why)
    settle(id)
    return 'ok'
  end
  for name, value in pairs(one.alloc) do
    call('HSET', key('alloc', id), name, value)
    call('SADD', key('on', name), id)
    local taken, bytes = parts(value)
    debit(name, taken, bytes)
  end
  call('ZADD', key('leases'), stamp(now + LEASE), id)
  move(id, 'running', 'taken over from ' .. one.record.head)
  return 'ok'
end

-- free = slots - sum of allocations; every job in the set of its state. Returns what was mended.
function ops.reconcile()
  local said = {}
  for _, name in ipairs(call('SMEMBERS', key('nodes'))) do
    local row = node(name, 'slots', 'memory', 'free', 'room')
    slots(name, row[1] or 0, row[2] or 0)
    local after = call('HMGET', key('node', name), 'free', 'room')
    if after[1] ~= row[3] or after[2] ~= row[4] then
      said[#said + 1] = name .. ': ' .. (row[3] or 'no') .. ' slots were free, ' .. after[1] .. ' are'
    end
  end
  pass()
  return said
end

-- Forget jobs that have been over for so many seconds, a thousand at a time; returns how many.
function ops.prune(seconds)
  local count = 0
  for _, state in ipairs({'done', 'failed', 'cancelled', 'broken'}) do
    local old = call('ZRANGEBYSCORE', key('state', state), '-inf', now - tonumber(seconds), 'LIMIT', 0, 1000)
    for _, id in ipairs(old) do
      if count < 1000 and call('EXISTS', key('alloc', id), key('after', id)) == 0 then
        local base = string.match(id, ARRAY)
        local name, whole = job(id, 'key'), base and call('EXISTS', key('array', base)) == 1
        call('ZREM', key('state', state), id)
        call('DEL', key('job', id), key('log', id), key('aside', id))
        if not whole or call('HINCRBY', key('array', base), 'kept', -1) == 0 then  -- the last of an array: all of it
          if whole then call('DEL', key('array', base)) end
          if name and call('GET', key('key', name)) == (base or id) then call('DEL', key('key', name)) end
        end
        count = count + 1
      end
    end
  end
  return count
end

function ops.pass()
  pass()
  return 'ok'
end

-- What somebody has seen last: its epoch, numbers, and epochs before.
function ops.hello(epoch, count, seq, fence, ...)
  seen({epoch = epoch, count = tonumber(count), seq = tonumber(seq), fence = tonumber(fence), epochs = {...}})
  return call('GET', key('paused')) or ''
end

function ops.pause(why)
  call('SET', key('paused'), why)
  event('paused', '', why)
  return 'ok'
end

-- A new spool, or a person's word that what was lost is known. `seq` and `fence`: the highest that anybody has seen.
-- Nodes that have not reported since Redis was started may run what it has forgotten: they have to report first, or to
-- be 'gone'.
function ops.resume(epoch, seq, fence)
  local unheard = {}
  for _, name in ipairs(call('SMEMBERS', key('nodes'))) do
    local row = node(name, 'run', 'state')
    if row[1] ~= run and row[2] ~= 'gone' then unheard[#unheard + 1] = name end
  end
  if call('EXISTS', key('paused')) == 1 and #unheard > 0 then
    table.sort(unheard)
    return redis.error_reply('SPOOL ' .. table.concat(unheard, ', ') .. ': not heard of since, and may run what was lost: '
      .. 'start brmpi agent there, or say that nothing runs there any more: brmpi drain NODE --gone')
  end
  for name, least in pairs({seq = seq, fence = fence}) do
    if tonumber(call('GET', key(name)) or '0') < tonumber(least) then call('SET', key(name), least) end
  end
  local before = call('GET', key('epoch'))
  if before then call('SADD', key('epochs'), before) end
  if call('EXISTS', key('lost')) == 1 then call('SUNIONSTORE', key('epochs'), key('epochs'), key('lost')) end
  call('SETNX', key('name'), string.sub(epoch, 1, 8))
  call('SET', key('epoch'), epoch)
  call('DEL', key('paused'), key('lost'))
  event('resumed', '', '')
  pass()
  return 'ok'
end

---- who asks -----------------------------------------------------------------------------------------------------

-- A restart of Redis is seen by whoever comes first: nothing is placed before all nodes that were up have reported.
local before = call('GET', key('run'))
if before ~= run then
  call('SET', key('run'), run)
  if before then
    call('SET', key('hold'), stamp(now + HOLD))
    for _, name in ipairs(call('SMEMBERS', key('nodes'))) do
      if node(name, 'state')[1] == 'up' then
        call('SADD', key('awaited'), name)
        call('HSET', key('node', name), 'seen', stamp(now))
      end
      call('HDEL', key('node', name), 'shy', 'trouble')
    end
    call('SET', key('tick'), stamp(now))
    for _, id in ipairs(call('ZRANGE', key('leases'), 0, -1)) do call('ZADD', key('leases'), stamp(now + LEASE), id) end
    for _, id in ipairs(call('ZRANGEBYSCORE', key('delayed'), now + 2 ^ PAUSE, '+inf')) do  -- the clock was set back
      call('ZADD', key('delayed'), stamp(now + 2 ^ PAUSE), id)
    end
    event('restarted', '', 'Redis')
  end
end

-- A clock that was set back is seen before anything is timed by it.
local last = tonumber(call('GET', key('clock')) or '')
if last and before == run and now < last - 1 then shifted(now - last) end
if not last or now > last + 0.5 or now < last then call('SET', key('clock'), stamp(now)) end

local epoch = call('GET', key('epoch'))
if op == 'submit' then
  if not epoch then return redis.error_reply('SPOOL this Redis holds no spool: brmpi spool resume begins one') end
  local why = call('GET', key('paused'))
  if why then return redis.error_reply('SPOOL the spool is paused: ' .. why .. ': brmpi spool resume goes on') end
end
local count = call('INCR', key('count'))
local said = ops[op](unpack(ARGV, 2))
if type(said) == 'table' and said.err then return said end
return {epoch or '', tostring(count), call('GET', key('seq')) or '0', call('GET', key('fence')) or '0', run, said}
