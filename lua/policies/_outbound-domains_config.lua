-- An example.
return {
  hosts = { "api.openai.com", "api.anthropic.com", "*.agents.svc.cluster.local", "example.com", "*.example.com", "localhost", "127.0.0.1" },
}
