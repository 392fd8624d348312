-- A token bucket a client address and worker.
local buckets = {}
local BURST, PER_SECOND = 3, 0.001

function envoy_on_request(request_handle)
  local address = request_handle:streamInfo():downstreamRemoteAddress():gsub(":%d+$", "")
  local now = request_handle:timestamp() / 1000
  local bucket = buckets[address]
  if bucket == nil then
    bucket = {tokens = BURST, at = now}
    buckets[address] = bucket
  end
  bucket.tokens = math.min(BURST, bucket.tokens + (now - bucket.at) * PER_SECOND)
  bucket.at = now
  if bucket.tokens < 1 then
    request_handle:respond({[":status"] = 429, ["retry-after"] = math.ceil((1 - bucket.tokens) / PER_SECOND)}, "slow down")
    return
  end
  bucket.tokens = bucket.tokens - 1
end
