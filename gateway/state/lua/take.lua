-- Judge many requests against their limits; charge each request's limits together, or none. Before that, charge
-- what a gateway admitted by itself while this Redis was away, to the moments at which it did.
-- KEYS[k]  state of one counter; all in one hash slot, so one Redis node
-- ARGV[1]  a number of the caller's, returned first: proof that this reply is this call's
-- ARGV[2]  JSON {"specs": [[capacity, window, algorithm, shadow, cost], …], "requests": [[k, s, k, s, …], …],
--          "debts": [[k, s, age, tokens, age, tokens, …], …], "once": k}:
--          tokens, microseconds, 0 sliding-window | 1 fixed-window | 2 token-bucket, 1 if it never refuses, tokens;
--          each request is pairs of a key's and a spec's number, counted from 1, no key twice;
--          each debt is a key's and a spec's number, then how long ago (microseconds) how many tokens were taken;
--          once: the key that says that these debts were charged before, and only the answer was lost; or 0
-- returns  {ARGV[1], now, then for each pair in order: allowed, remaining, reset, wait}; times in microseconds
-- State is numbers joined by spaces, and lives until the quota is whole again. gateway/state/algorithms.py
-- holds the same algorithms, with their sources.

local time = redis.call('TIME') -- never the gateway's clock: hosts disagree
local now = time[1] * 1000000 + time[2]
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

-- ---- algorithms: state is made current by `load`, then asked and charged -----------------------

local function window_of(state, window)
    local index = floor(now / window)
    state.elapsed = now - index * window
    local passed = max(0, index - state[1])
    state.stepped_back = state[1] > index -- Redis's clock was set back: the counts are of this window now
    state[1] = index
    return passed
end

-- A count with what is owed to it, up to the capacity: beyond that it would hold others up for longer than the
-- limit does, and then let all of them pass at once.
local function filled(count, tokens, capacity)
    return max(count, min(capacity, count + tokens))
end

local sliding = { -- index, hits in this window, in the one before, offsets of the last hit of each
    size = 5,
    load = function(state, _, window)
        local passed = window_of(state, window)
        if passed == 1 then
            state[3], state[5] = state[2], state[4]
        elseif passed > 1 then
            state[3], state[5] = 0, 0
        end
        if passed > 0 then
            state[2], state[4] = 0, 0
        end
    end,
    room = function(state, capacity, window)
        local before = state.elapsed < state[5] and state[3] * (window - state.elapsed) / window or 0
        return capacity - state[2] - before
    end,
    charge = function(state, cost)
        state[2], state[4] = state[2] + cost, max(state[4], state.elapsed)
    end,
    owe = function(state, age, tokens, capacity, window)
        local at = state.elapsed - age
        if at >= 0 then
            state[2], state[4] = filled(state[2], tokens, capacity), max(state[4], at)
        elseif at >= -window then
            state[3], state[5] = filled(state[3], tokens, capacity), max(state[5], at + window)
        end
    end,
    reset = function(state, _, window)
        if state[2] > 0 then
            return window - state.elapsed + state[4]
        end
        return state[3] > 0 and max(0, state[5] - state.elapsed) or 0
    end,
    wait = function(state, cost, capacity, window)
        local free = capacity - state[2] - cost
        if free >= 0 then
            return min(state[5], ceil(window - free * window / state[3])) - state.elapsed
        end
        return window - state.elapsed + min(state[4], ceil(window - (capacity - cost) * window / state[2]))
    end,
}

local fixed = { -- index, hits in this window
    size = 2,
    load = function(state, _, window)
        if window_of(state, window) > 0 then
            state[2] = 0
        end
    end,
    room = function(state, capacity)
        return capacity - state[2]
    end,
    charge = function(state, cost)
        state[2] = state[2] + cost
    end,
    owe = function(state, age, tokens, capacity)
        if age <= state.elapsed then
            state[2] = filled(state[2], tokens, capacity)
        end
    end,
    reset = function(state, _, window)
        return state[2] > 0 and window - state.elapsed or 0
    end,
    wait = function(state, _, _, window)
        return window - state.elapsed
    end,
}

local bucket = { -- debt in token·microseconds, when it was reckoned
    size = 2,
    load = function(state, capacity)
        state[1] = max(0, state[1] - max(0, now - state[2]) * capacity)
        state.stepped_back = state[2] > now
        state[2] = now
    end,
    room = function(state, capacity, window)
        return (capacity * window - state[1]) / window
    end,
    charge = function(state, cost, window)
        state[1] = state[1] + cost * window
    end,
    owe = function(state, _, tokens, capacity, window) -- what is left of them: they have drained since
        state[1] = filled(state[1], tokens * window, capacity * window)
    end,
    reset = function(state, capacity)
        return ceil(state[1] / capacity)
    end,
    wait = function(state, cost, capacity, window)
        return ceil((state[1] + cost * window - capacity * window) / capacity)
    end,
}

local algorithms = { [0] = sliding, [1] = fixed, [2] = bucket }

-- ---- read every counter at once -----------------------------------------------------------------

local call = cjson.decode(ARGV[2])
local stored = #KEYS > 0 and redis.call('MGET', unpack(KEYS)) or {}
local states, lifetimes = {}, {}

local function state_of(k, algorithm, capacity, window)
    local state = states[k]
    if not state then
        state = {}
        for word in string.gmatch(stored[k] or '', '%S+') do
            state[#state + 1] = tonumber(word)
        end
        if #state ~= algorithm.size then -- new, or not ours
            state = { 0, 0, 0, 0, 0 }
        end
        algorithm.load(state, capacity, window)
        states[k] = state
        if state.stepped_back then -- written even if nothing is charged, or it would stay full till then
            lifetimes[k] = { algorithm.size, algorithm.reset(state, capacity, window) }
        end
    end
    return state
end

local function changed(k, algorithm, capacity, window)
    lifetimes[k] = { algorithm.size, algorithm.reset(states[k], capacity, window) }
end

-- ---- charge what is owed -------------------------------------------------------------------------------

local once = call.once > 0 and { longest = 0 } or nil
if once and stored[call.once] then
    call.debts, once = {}, nil
end
for _, debt in ipairs(call.debts) do
    local k = debt[1]
    local capacity, window, kind = unpack(call.specs[debt[2]])
    local algorithm = algorithms[kind]
    local state = state_of(k, algorithm, capacity, window)
    if once then
        once.longest = max(once.longest, window)
    end
    for i = 3, #debt, 2 do
        algorithm.owe(state, debt[i], debt[i + 1], capacity, window)
    end
    changed(k, algorithm, capacity, window)
end

-- ---- judge each request, then charge it; the next one sees what is left --------------------------

local reply = { ARGV[1], now }
for _, pairs_ in ipairs(call.requests) do
    local admitted = true
    for i = 1, #pairs_, 2 do
        local capacity, window, kind, shadow, cost = unpack(call.specs[pairs_[i + 1]])
        local state = state_of(pairs_[i], algorithms[kind], capacity, window)
        if shadow == 0 and algorithms[kind].room(state, capacity, window) < cost then
            admitted = false
        end
    end
    for i = 1, #pairs_, 2 do
        local k = pairs_[i]
        local capacity, window, kind, shadow, cost = unpack(call.specs[pairs_[i + 1]])
        local algorithm, state = algorithms[kind], states[k]
        local allowed = algorithm.room(state, capacity, window) >= cost
        if allowed and admitted then -- a full shadow limit is left as it would be if it were enforced
            algorithm.charge(state, cost, window)
            changed(k, algorithm, capacity, window)
        end
        local n = #reply
        reply[n + 1] = allowed and 1 or 0
        reply[n + 2] = max(0, floor(algorithm.room(state, capacity, window)))
        reply[n + 3] = max(0, algorithm.reset(state, capacity, window))
        reply[n + 4] = allowed and 0 or max(1, algorithm.wait(state, cost, capacity, window))
    end
end

-- ---- write what changed; a counter that is whole again needs no key --------------------------

for k, lifetime in pairs(lifetimes) do
    local words = {}
    for i = 1, lifetime[1] do
        words[i] = string.format('%.17g', states[k][i])
    end
    redis.call('SET', KEYS[k], table.concat(words, ' '), 'PX', max(1, ceil(lifetime[2] / 1000)))
end
if once then -- for two windows: older debts count for nothing
    redis.call('SET', KEYS[call.once], '1', 'PX', max(1, ceil(once.longest / 500)))
end
return reply
