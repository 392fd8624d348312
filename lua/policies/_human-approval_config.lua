-- An example: the public key of the service where people approve, and what the tools can do.
return {
  keys = [[{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "approver", "x": "cBaClWCJ3rTGNPPKjuO7LVi8EoVXIaLniO0ieRLfQTg"}]}]],
  issuer = "https://approvals.example",
  where = "https://approvals.example/new",
  scores = { ["*"] = 0.2, ["payment.*"] = 0.9, ["deploy.*"] = 0.85 },
}
