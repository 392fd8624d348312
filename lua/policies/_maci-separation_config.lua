-- An example: roles by service account, actions by the names of tools and of the bus's messages.
return {
  roles = {
    executive = { "spiffe://cluster.local/ns/agents/sa/planner" },
    legislative = { "spiffe://cluster.local/ns/agents/sa/lawyer" },
    judicial = { "spiffe://cluster.local/ns/court/sa/judge", "spiffe://cluster.local/ns/court/sa/judge-2" },
    monitor = { "spiffe://cluster.local/ns/watch/sa/*" },
    auditor = { "spiffe://cluster.local/ns/audit/sa/*" },
    controller = { "spiffe://cluster.local/ns/control/sa/*" },
    implementer = { "spiffe://cluster.local/ns/agents/sa/builder" },
  },
  actions = {
    ["query.*"] = "query", ["proposal.create"] = "propose", ["code.write"] = "synthesize", ["rules.extract"] = "extract_rules",
    ["output.validate"] = "validate", ["audit.*"] = "audit", ["activity.watch"] = "monitor_activity", ["control.enforce"] = "enforce_control",
    ["cooldown.start"] = "emergency_cooldown", query = "query", governance_request = "propose", constitutional_validation = "validate",
    audit_log = "audit",
  },
  agents = { planner = "spiffe://cluster.local/ns/agents/sa/planner", builder = "spiffe://cluster.local/ns/agents/sa/builder" },
}
