// conformance.mjs PACKAGE ARGUMENTS…: the MCP conformance suite's own command. It is written for Node 22, whose fs.globSync one
// subcommand uses that isn't run here (tier-check); under Node 20 the name is taken out of the import as the file is loaded.
import fs from "node:fs";
import { register } from "node:module";
import { pathToFileURL } from "node:url";

const [name, ...rest] = process.argv.slice(2);
const main = fs.realpathSync(new URL(`node_modules/@modelcontextprotocol/${name}/dist/index.js`, import.meta.url));
const hook = `
export async function load(url, context, next) {
  const loaded = await next(url, context);
  if (url !== ${JSON.stringify(pathToFileURL(main).href)}) return loaded;
  const text = loaded.source.toString(), glob = /globSync as (\\w+),/.exec(text);
  return { ...loaded, source: glob ? text.replace(glob[0], "") + ";var " + glob[1] + ";" : text };
}`;
if (!fs.globSync) register("data:text/javascript," + encodeURIComponent(hook));
process.argv = [process.argv[0], main, ...rest];
await import(pathToFileURL(main));
