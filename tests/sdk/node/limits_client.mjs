// limits_client.mjs PACKAGE URL: an agent that goes on until a limit says no. A line of JSON for each step.
import { step } from "./steps.mjs";
import { talk } from "./talk.mjs";

const [name, url] = process.argv.slice(2);
const { call, stream } = await talk(name, url);

await step("call", () => call("law-1"));
await step("stream", () => stream("law-1"));
await step("over", () => call("law-1"));
await step("stream over", () => stream("law-1"));
await step("another model", () => call("law-2"));
