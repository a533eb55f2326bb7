// MCP clients that a test drives: node client.mjs URL
//
// A line in is {"who", "do", ...}: which client, and one of the verbs below. A line out, in the
// same order, is {"ok": value} or {"error": message, "code"}.
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const url = new URL(process.argv[2]);
const guests = new Map();

class Guest {
  client = new Client({ name: "rollbackd-test", version: "1.0.0" });
  // Status of the answer to the GET that listens; the SDK opens it unasked and says nothing of it.
  stream = new Promise((tell) => (this.streamed = tell));

  constructor() {
    const spy = async (where, how) => {
      const answer = await fetch(where, how);
      if (how?.method === "GET") this.streamed(answer.status);
      return answer;
    };
    this.changes = 0;
    this.client.setNotificationHandler(ToolListChangedNotificationSchema, () => void this.changes++);
    this.transport = new StreamableHTTPClientTransport(url, { fetch: spy });
  }

  async connect() {
    await this.client.connect(this.transport);
    const { name, version } = this.client.getServerVersion();
    const server = `${name} ${version}`;
    return { session: this.transport.sessionId, stream: await this.stream, server };
  }

  async id() {
    return this.transport.sessionId;
  }

  async news() {
    for (let n = 0; n < 50 && this.changes === 0; n++) await new Promise((on) => setTimeout(on, 100));
    return this.changes;
  }

  async tools() {
    const { tools } = await this.client.listTools();
    return tools.map((tool) => tool.name);
  }

  async call({ tool, input }) {
    return words(await this.client.callTool({ name: tool, arguments: input }));
  }

  // Answers when the server is at work on the call; `finish` waits for its end.
  async begin({ tool, input }) {
    await new Promise((begun, failed) => {
      const call = { name: tool, arguments: input };
      this.pending = this.client.callTool(call, undefined, { onprogress: begun });
      this.pending.catch(failed);
    });
    return "begun";
  }

  async finish() {
    return words(await this.pending);
  }

  async close() {
    await this.client.close();
    return "closed";
  }
}

function words({ content, isError }) {
  const text = content.map((part) => part.text).join("");
  if (isError) throw new Error(`the tool failed: ${text}`);
  return text;
}

async function answer({ who, do: verb, ...rest }) {
  if (verb === "connect") guests.set(who, new Guest());
  try {
    return { ok: await guests.get(who)[verb](rest) };
  } catch (error) {
    return { error: String(error.message), code: error.code };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
process.exit(0);
