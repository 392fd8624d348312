-- A script that looks after itself: errors inside pcall, also around what waits.
function envoy_on_request(request_handle)
  local ok, err = pcall(function()
    request_handle:headers():replace("x-nil", nil)
  end)
  request_handle:headers():add("x-first", tostring(ok) .. (err:match("bad argument #2 to 'replace'") or err))
  local fine, headers, body = pcall(request_handle.httpCall, request_handle, "auth",
    {[":method"] = "GET", [":path"] = "/pcall", [":authority"] = "a"}, nil, 5000)
  request_handle:headers():add("x-second", tostring(fine) .. headers[":status"] .. body)
  local bad, why = pcall(request_handle.httpCall, request_handle, "nowhere",
    {[":method"] = "GET", [":path"] = "/", [":authority"] = "a"}, nil, 5000)
  request_handle:headers():add("x-third", tostring(bad) .. " " .. (why:match("http call cluster invalid.*$") or why))
  local iterations = 0
  for _ in request_handle:bodyChunks() do
    iterations = iterations + 1
  end
  goto done
  ::done::
  request_handle:streamInfo():dynamicMetadata():set("guarded", "chunks", iterations)
end

function envoy_on_response(response_handle)
  local seen = response_handle:streamInfo():dynamicMetadata():get("guarded")
  response_handle:headers():add("x-chunks", seen.chunks)
  local ok, err = pcall(function() response_handle:respond({[":status"] = "500"}) end)
  response_handle:headers():add("x-respond", tostring(ok) .. " " .. err:gsub("^.-:%d+: ", ""))
end
