// The definition that client and server share: messages are bytes as they are.
const bytes = (b) => b;
const method = (name, requestStream, responseStream) => ({
  path: `/test.Echo/${name}`, requestStream, responseStream,
  requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes,
});
export const service = {
  unary: method("Unary", false, false),
  client: method("Client", true, false),
  server: method("Server", false, true),
  both: method("Both", true, true),
};
