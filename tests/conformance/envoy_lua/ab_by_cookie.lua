-- A/B: the cookie says which variant; who has none is dealt one, and keeps it.
local counter = 0

local function cookie(headers, name)
  local all = headers:get("cookie")
  if all == nil then
    return nil
  end
  for key, value in string.gmatch(all, "([^=; ]+)=([^;]*)") do
    if key == name then
      return value
    end
  end
end

function envoy_on_request(request_handle)
  local headers = request_handle:headers()
  local variant = cookie(headers, "variant")
  if variant ~= "a" and variant ~= "b" then
    counter = counter + 1
    variant = counter % 2 == 1 and "a" or "b"
    request_handle:streamInfo():dynamicMetadata():set("ab", "new", variant)
  end
  headers:replace("x-variant", variant)
  if variant == "b" then
    headers:replace(":path", "/next" .. headers:get(":path"))
    request_handle:clearRouteCache()
  end
end

function envoy_on_response(response_handle)
  local ab = response_handle:streamInfo():dynamicMetadata():get("ab")
  if ab and ab.new then
    response_handle:headers():add("set-cookie", "variant=" .. ab.new .. "; Path=/; HttpOnly")
  end
end
