// egress_client.mjs PACKAGE: an agent as anybody writes it: the SDK of a model provider as it comes, its own base URL, calls
// that are allowed and refused in turns. A line of JSON for each.
import { step } from "./steps.mjs";
import { talk } from "./talk.mjs";

const [name] = process.argv.slice(2);
const { call, stream } = await talk(name);

await step("allowed", () => call("plain"));
await step("forbidden", () => call("forbidden"));
await step("allowed again", () => call("plain"));
await step("stream", () => stream("plain"));
await step("forbidden stream", () => stream("forbidden"));
await step("leaky stream", () => stream("leaky"));
await step("broken stream", () => stream("broken"));
await step("allowed at last", () => call("plain"));
