// What the clients here share: a step prints a line with what came of it, and how long it took.
export async function step(name, run) {
  const begin = performance.now();
  let line;
  try {
    line = { value: await run() };
  } catch (e) {
    line = { thrown: e?.constructor?.name, status: e?.status, code: e?.code, type: e?.type, message: e?.message, request: e?.requestID ?? e?.request_id, wait: e?.headers?.get?.("retry-after") ?? e?.headers?.["retry-after"], decision: e?.error?.decision ?? e?.error?.request_id };
  }
  console.log(JSON.stringify({ step: name, ...line, ms: performance.now() - begin }));
}

// All of a stream; what came before it threw is in `got`.
export async function all(stream) {
  const got = [];
  try {
    for await (const event of await stream) got.push(event);
  } catch (e) {
    console.log(JSON.stringify({ step: "before", value: got }));
    throw e;
  }
  return got;
}
