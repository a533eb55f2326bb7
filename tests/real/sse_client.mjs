// A client with the HTTP+SSE transport: node sse_client.mjs URL
// For each line on its input it prints the names of the tools, or an error.
import "./lo.mjs";
import readline from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";

const client = new Client({ name: "sse", version: "1" });
await client.connect(new SSEClientTransport(new URL(process.argv[2])));
for await (const _ of readline.createInterface({ input: process.stdin })) {
  try {
    const listed = await client.listTools(undefined, { timeout: 20_000 });
    console.log(JSON.stringify(listed.tools.map((tool) => tool.name)));
  } catch (error) {
    console.log(JSON.stringify(`error: ${error}`));
  }
}
process.exit(0);
