-- An example: the end of a SPIFFE ID alone would let in the planner of any namespace, so write all of it.
return {
  agents = {
    ["spiffe://cluster.local/ns/agents/sa/planner"] = { "search", "calendar", "plan.*" },
    ["spiffe://cluster.local/ns/agents/sa/writer"] = { "search", "document.read", "document.write" },
    ["spiffe://cluster.local/ns/research-*/sa/reader"] = { "search" },
  },
}
