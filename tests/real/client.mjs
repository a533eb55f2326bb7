// MCP clients that a test controls: node client.mjs VERSION ERA URL
//
// VERSION is the SDK version, 1 or 2. ERA is "legacy", or "modern": the protocol without sessions.
// An input line is {"who", "do", ...}: the client, and one of the verbs below. Output lines have
// the same order; each is {"ok": value} or {"error": message, "code", "data"}.
import { createInterface } from "node:readline";
import * as one from "@modelcontextprotocol/sdk/client/index.js";
import { ToolListChangedNotificationSchema, ResourceUpdatedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as two from "@modelcontextprotocol/client";

const [version, era, where] = process.argv.slice(2);
const url = new URL(where);
const info = { name: "rollbackd-test", version: "1.0.0" };
const guests = new Map();

class Guest {
  // Status of the response to the GET stream. The SDK opens the stream and does not report it.
  stream = new Promise((tell) => (this.streamed = tell));
  changes = 0;
  updates = 0;

  constructor() {
    const spy = async (where, how) => {
      const answer = await fetch(where, how);
      if (how?.method === "GET") this.streamed(answer.status);
      return answer;
    };
    if (version === "1") this.first(spy);
    else this.second(spy);
  }

  // This SDK does not list the tools again when they change.
  first(fetch) {
    this.client = new one.Client(info);
    this.client.setNotificationHandler(ToolListChangedNotificationSchema, () => void this.changes++);
    this.client.setNotificationHandler(ResourceUpdatedNotificationSchema, () => void this.updates++);
    this.transport = new StreamableHTTPClientTransport(url, { fetch });
    this.start = (call, onprogress) => this.client.callTool(call, undefined, { onprogress });
  }

  // This SDK lists the tools again when they change, in the same session.
  second(fetch) {
    const onChanged = (error) => {
      this.changes++;
      this.trouble ??= error;
    };
    const mode = era === "modern" ? { pin: "2026-07-28" } : "legacy";
    const options = { versionNegotiation: { mode }, listChanged: { tools: { onChanged } } };
    this.client = new two.Client(info, options);
    this.client.setNotificationHandler("notifications/resources/updated", () => void this.updates++);
    this.transport = new two.StreamableHTTPClientTransport(url, { fetch });
    this.start = (call, onprogress) => this.client.callTool(call, { onprogress });
  }

  async connect() {
    await this.client.connect(this.transport);
    // Without sessions the SDK opens no GET stream.
    return { session: await this.id(), stream: era === "modern" ? null : await this.stream };
  }

  async id() {
    return this.transport.sessionId ?? null;
  }

  async news() {
    return await soon(() => this.changes, 5);
  }

  async tools() {
    const { tools } = await this.client.listTools();
    return tools.map((tool) => tool.name);
  }

  async call({ tool, input }) {
    return words(await this.client.callTool({ name: tool, arguments: input }));
  }

  // Returns when the server works on the call; `finish` waits for the result.
  async begin({ tool, input }) {
    await new Promise((begun, failed) => {
      this.pending = this.start({ name: tool, arguments: input }, begun);
      this.pending.catch(failed);
    });
    return "begun";
  }

  async finish() {
    return words(await this.pending);
  }

  async subscribe({ uri }) {
    await this.client.subscribeResource({ uri });
    return "subscribed";
  }

  async updated() {
    return await soon(() => this.updates, 20);
  }

  async close() {
    await this.client.close();
    return "closed";
  }
}

// Returns the number of notifications; waits at most `seconds` for the first.
async function soon(heard, seconds) {
  for (let n = 0; n < 10 * seconds && heard() === 0; n++) await new Promise((on) => setTimeout(on, 100));
  return heard();
}

function words({ content, isError }) {
  const text = content.map((part) => part.text).join("");
  if (isError) throw new Error(`the tool failed: ${text}`);
  return text;
}

async function answer({ who, do: verb, ...rest }) {
  if (verb === "connect") guests.set(who, new Guest());
  const guest = guests.get(who);
  try {
    const ok = await guest[verb](rest);
    if (guest.trouble) throw guest.trouble;
    return { ok };
  } catch (error) {
    return { error: String(error.message), code: error.code, data: error.data };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
process.exit(0);
