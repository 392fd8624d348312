-- An example: weekdays in Berlin, and a night shift on Fridays; whoever is on call may always.
return {
  hours = {
    { days = "mon-fri", from = "08:00", to = "18:00", zone = "Europe/Berlin" },
    { days = "fri", from = "22:00", to = "02:00", zone = "Europe/Berlin" },
  },
  closed = { "2026-12-25" },
  exempt = { "spiffe://cluster.local/ns/agents/sa/on-call" },
}
