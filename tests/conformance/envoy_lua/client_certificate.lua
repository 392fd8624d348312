-- x-forwarded-client-cert by hand, from the peer's certificate; plain connections carry none on.
function envoy_on_request(request_handle)
  request_handle:headers():remove("x-forwarded-client-cert")
  local ssl = request_handle:streamInfo():downstreamSslConnection()
  if ssl == nil then
    request_handle:headers():add("x-tls", "none")
    return
  end
  if not (ssl:peerCertificatePresented() and ssl:peerCertificateValidated()) then
    request_handle:respond({[":status"] = "403"}, "a certificate is needed")
  end
  local subject = ssl:parsedSubjectPeerCertificate()
  local parts = {
    "Hash=" .. ssl:sha256PeerCertificateDigest(),
    'Subject="' .. ssl:subjectPeerCertificate() .. '"',
    "URI=" .. table.concat(ssl:uriSanPeerCertificate(), ","),
    "DNS=" .. table.concat(ssl:dnsSansPeerCertificate(), ","),
    "By=" .. table.concat(ssl:uriSanLocalCertificate(), ","),
  }
  request_handle:headers():add("x-forwarded-client-cert", table.concat(parts, ";"))
  request_handle:headers():add("x-cert", ssl:urlEncodedPemEncodedPeerCertificate())
  request_handle:headers():add("x-tls", ssl:tlsVersion() .. " " .. ssl:ciphersuiteId() .. " " .. ssl:ciphersuiteString())
  local now = os.time()
  local lives = ssl:validFromPeerCertificate() <= now and now < ssl:expirationPeerCertificate()
  request_handle:headers():add("x-details", table.concat({
    subject:commonName(), #subject:organizationName(), ssl:issuerPeerCertificate(), ssl:serialNumberPeerCertificate(),
    tostring(lives), #ssl:oidsPeerCertificate(), #ssl:oidsLocalCertificate(), ssl:subjectLocalCertificate(),
    table.concat(ssl:dnsSansLocalCertificate(), ","), type(ssl:sessionId()),
    #ssl:urlEncodedPemEncodedPeerCertificateChain() >= #ssl:urlEncodedPemEncodedPeerCertificate() and "chain" or "no",
  }, "|"))
end
