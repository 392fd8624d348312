-- An example: each tenant has its namespace, and the gateway speaks for all of them.
return {
  identity = { "spiffe://cluster.local/ns/tenant-{tenant}/sa/*" },
  speakers = { "spiffe://cluster.local/ns/edge/sa/gateway" },
}
