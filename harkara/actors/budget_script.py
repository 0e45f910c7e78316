"""What Redis does for budgets, each in one atomic step. Times are microseconds of its own clock.

The machines that send have clocks of their own, and one that is behind by less than a turn would never have one.

Keys of a number: `rate:` theoretical arrival of its next message (the generic cell rate algorithm), `hold:` until when
it rests, `in:` messages that came to it and nobody has counted yet, `slow:` what share of its rate it was seen to bear,
and when. Others: `pair:` a number and a phone, `open:` the phone wrote within a day, `users:` whom a portfolio has
written to, `pace:` a template's interval and next turn, `plan:` theoretical arrival of a tenant's next message.
"""

from __future__ import annotations

from harkara.schemas.reasons import Reason

#: A number that was too fast goes on at this share of its rate, and gets all of it back within this time.
SLOWER, SLOWEST, RECOVERS_US = 0.7, 0.1, 300_000_000

#: Refusals that come within this time of each other are one: their messages left at the same speed.
ONE_LESSON_US = 1_000_000

#: What comes in counts like what goes out, but never holds a number up for longer than this.
MOST_INBOUND_US = 1_000_000

#: WhatsApp's rule for one number and one phone: a message every six seconds; within six seconds up to 45, which is
#: borrowed from what follows. We stay a little on the safe side of both, because requests take a while to arrive.
PAIR_US, PAIR_WINDOW_US, PAIR_BURST = 6_100_000, 5_500_000, 45

DAY_US = 86_400_000_000

#: The kinds of budgets that keep back one message and no other, as the script names them.
KINDS: tuple[Reason, ...] = ("pair_limit", "portfolio_limit", "template_pace")

#: Tests give a time; else it is Redis's own.
_NOW = """
local function clock(given)
  if tonumber(given) > 0 then return tonumber(given) end
  local told = redis.call('TIME')
  return told[1] * 1000000 + told[2]
end
"""

_SHARE = f"""
local function share(key, now)
  local slow = redis.call('GET', key)
  if not slow then return 1, 0 end
  local factor, at = string.match(slow, '([^ ]+) (.+)')
  return math.min(1, factor + (now - at) / {RECOVERS_US}), tonumber(at)
end
"""

#: One list as JSON, and one text as the answer, because a client takes longer over every single word than all of this
#: takes here. In: sender, tenant, microseconds a message of the number, its burst, a test's time or 0, microseconds a
#: message of the tenant (0: no limit), how many turns were not used and come back, and of each message: phone, whether
#: the pair rule holds, portfolio (empty: none), its limit, template. Out: after how long to ask again, what time it is,
#: and for each message 0 (it may go), -2 (it may, and has a place in its portfolio that its phone did not have), -1
#: (not its turn yet), or 4 * milliseconds + kind (it waits alone). Whom a portfolio has written to never has the same
#: time twice.
TAKE = f"""
{_NOW}{_SHARE}
local sender, tenant, per_message, burst, given, per_tenant, back, wanted = unpack(cjson.decode(ARGV[1]))
local now = clock(given)
local items = #wanted
local answer = {{0, string.format('%.0f', now)}}
local function put(key, arrival)
  redis.call('SET', key, string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1000)
end
local held = tonumber(redis.call('GET', 'hold:' .. sender) or '0')
if held > now then
  for i = 1, items do answer[i + 2] = -1 end
  answer[1] = held - now
  return table.concat(answer, ' ')
end
per_message = per_message / (share('slow:' .. sender, now))
local arrival = math.max(now, tonumber(redis.call('GET', 'rate:' .. sender) or '0') - back * per_message)
local came = redis.call('GETDEL', 'in:' .. sender)
if came then arrival = math.max(arrival, math.min(arrival + came * per_message, now + {MOST_INBOUND_US})) end
local room = math.floor((now + per_message * burst - arrival) / per_message)
local of_plan = now
if per_tenant > 0 then
  of_plan = math.max(now, tonumber(redis.call('GET', 'plan:' .. tenant) or '0') - back * per_tenant)
  room = math.min(room, math.floor((now + per_tenant * math.max(burst, 1) - of_plan) / per_tenant))
end

local function pair(key)
  local known = redis.call('GET', key)
  if not known then return 0, now, 1 end
  local started, count, free = string.match(known, '(%d+) (%d+) (%d+)')
  started, count, free = tonumber(started), tonumber(count), tonumber(free)
  if now >= free then return 0, now, 1 end
  if now - started < {PAIR_WINDOW_US} and count < {PAIR_BURST} then return 0, started, count + 1 end
  return free - now
end
local function portfolio(key, limit, to)
  if redis.call('EXISTS', 'open:' .. sender .. ':' .. to) == 1 then return 0 end
  local seen = tonumber(redis.call('ZSCORE', key, to) or '0')
  if seen > now - {DAY_US} then return 0, math.max(now, seen + 1) end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - {DAY_US}))
  if redis.call('ZCARD', key) < limit then return 0, now, -2 end
  return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] + {DAY_US} - now
end
local function pace(key)
  local known = redis.call('GET', key)
  if not known then return 0 end
  local interval, turn = string.match(known, '(%d+) (%d+)')
  return math.max(0, turn - now), interval
end

local granted = 0
for i = 1, items do
  local to, paired, users, limit, template = unpack(wanted[i])
  local pair_key = 'pair:' .. sender .. ':' .. to
  local wait, kind, started, count, counted, place, interval = 0, 0, 0, 0, nil, nil, nil
  if room < 1 then
    answer[i + 2] = -1
  else
    if to ~= '' then wait, started, count = pair(pair_key); kind = 1 end
    if wait == 0 and users ~= '' then wait, counted, place = portfolio('users:' .. users, limit, to); kind = 2 end
    if wait == 0 and template ~= '' then wait, interval = pace('pace:' .. template); kind = 3 end
    if wait > 0 then
      answer[i + 2] = 4 * math.ceil(wait / 1000) + kind
    else
      if paired then
        local free = started + count * {PAIR_US}
        redis.call('SET', pair_key, string.format('%.0f %.0f %.0f', started, count, free),
                   'PX', math.ceil((free - now) / 1000) + 1)
      end
      if counted then
        redis.call('ZADD', 'users:' .. users, string.format('%.0f', counted), to)
        redis.call('PEXPIRE', 'users:' .. users, 90000000)
      end
      if interval then
        redis.call('SET', 'pace:' .. template, string.format('%.0f %.0f', interval, now + interval), 'KEEPTTL')
      end
      room, granted = room - 1, granted + 1
      answer[i + 2] = place or 0
    end
  end
end
arrival, of_plan = arrival + per_message * granted, of_plan + per_tenant * granted
if granted > 0 or came or back > 0 then put('rate:' .. sender, arrival) end
if (granted > 0 or back > 0) and per_tenant > 0 then put('plan:' .. tenant, of_plan) end
local wait = arrival + per_message - per_message * burst - now
if per_tenant > 0 then wait = math.max(wait, of_plan + per_tenant - per_tenant * math.max(burst, 1) - now) end
answer[1] = math.max(0, math.ceil(wait))
return table.concat(answer, ' ')
"""

#: users:<portfolio>, phone, when it took its place: gives it back, unless something was sent to the phone since.
FREE = """
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0') ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
"""

#: hold:<sender>, a test's time or 0, for how long: nothing goes out through it.
HOLD = f"""
{_NOW}
local rest = tonumber(ARGV[2])
redis.call('SET', KEYS[1], string.format('%.0f', clock(ARGV[1]) + rest), 'PX', math.floor(rest / 1000) + 1)
"""

#: slow:<sender>, a test's time or 0, the least share that this may lead to: go on more slowly.
SLOW = f"""
{_NOW}{_SHARE}
local now = clock(ARGV[1])
local factor, at = share(KEYS[1], now)
if now - at < {ONE_LESSON_US} then return 0 end
local slower = string.format('%.3f %.0f', math.min(factor, math.max(ARGV[2], factor * {SLOWER})), now)
redis.call('SET', KEYS[1], slower, 'PX', {RECOVERS_US // 1000})
return 1
"""

#: pair:<sender>:<phone>, a test's time or 0, for how long: nothing goes to it, and nothing is borrowed. What is owed is
#: not forgiven.
HOLD_PAIR = f"""
{_NOW}
local now, known = clock(ARGV[1]), redis.call('GET', KEYS[1])
local free = math.max(now + ARGV[2], known and tonumber(string.match(known, '%d+ %d+ (%d+)')) or 0)
redis.call('SET', KEYS[1], string.format('0 99 %.0f', free), 'PX', string.format('%.0f', (free - now) / 1000 + 1))
return free
"""
