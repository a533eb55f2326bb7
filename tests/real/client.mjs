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
    this.build();
  }

  build() {
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
    this.start = (call, how) => this.client.callTool(call, undefined, how);
  }

  // This SDK lists the tools again when they change, in the same session.
  second(fetch) {
    const onChanged = (error) => {
      // Its own end is no trouble.
      if (this.client !== client) return;
      this.changes++;
      this.trouble ??= error;
    };
    const mode = era === "modern" ? { pin: "2026-07-28" } : "legacy";
    const options = { versionNegotiation: { mode }, listChanged: { tools: { onChanged } } };
    const client = new two.Client(info, options);
    this.client = client;
    this.client.setNotificationHandler("notifications/resources/updated", () => void this.updates++);
    this.transport = new two.StreamableHTTPClientTransport(url, { fetch });
    this.start = (call, how) => this.client.callTool(call, how);
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
      this.pending = this.start({ name: tool, arguments: input }, { onprogress: begun });
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

  // Calls all the time until `rest`; see `turns` for the parts.
  async work(parts) {
    this.seen = { done: {}, failures: [], failed: 0 };
    this.over = false;
    this.working = this.turns(parts);
    return "working";
  }

  async rest() {
    this.over = true;
    await this.working;
    if (this.trouble) await this.attempt("listen", () => {});
    return { ...this.seen, changes: this.changes };
  }

  // Every `every` ms one turn: a call; every tenth one a call of seconds, a cancelled one and a list, if
  // there is a `slow` tool. After `stay` turns the client leaves and another one comes.
  async turns({ every, slow, stay }) {
    for (let turn = 1; !this.over; turn++) {
      if (turn % stay === 0 || this.lost) await this.attempt("reconnect", () => this.reconnect());
      else if (slow && turn % 10 === 3) await this.attempt("slow", () => this.slowCall(slow, 1 + (turn % 7)));
      else if (slow && turn % 10 === 6) await this.attempt("cancel", () => this.cancelledCall(slow));
      else if (turn % 10 === 9) await this.attempt("list", () => this.tools());
      else await this.attempt("echo", () => this.echo());
      await new Promise((on) => setTimeout(on, every * (0.5 + Math.random())));
    }
  }

  // Counts an action; keeps when and why it failed.
  async attempt(what, action) {
    const from = Date.now();
    try {
      await inTime(action());
      if (this.trouble) throw this.trouble;
      this.seen.done[what] = (this.seen.done[what] ?? 0) + 1;
    } catch (error) {
      this.trouble = undefined;
      // Some SDKs end with a broken connection, and are no use any more.
      this.lost ||= /Connection closed|nothing within/.test(error.message);
      const cause = error.cause ? ` (${error.cause.code ?? error.cause})` : "";
      const why = { code: error.code ?? null, data: error.data ?? null, message: `${error.message}${cause}` };
      this.seen.failed += 1;
      if (this.seen.failures.length < 500) this.seen.failures.push({ what, from, until: Date.now(), ...why });
    }
  }

  async echo() {
    const said = await this.call({ tool: "echo", input: { message: "hello" } });
    if (said !== "Echo: hello") throw new Error(`not an echo: ${said}`);
  }

  async slowCall(tool, seconds) {
    const input = { duration: seconds, steps: 5 * seconds };
    const said = words(await this.start({ name: tool, arguments: input }, { onprogress: () => {} }));
    if (!said.includes("completed")) throw new Error(`not completed: ${said}`);
  }

  async cancelledCall(tool) {
    const stop = new AbortController();
    const call = this.start({ name: tool, arguments: { duration: 6, steps: 30 } }, { signal: stop.signal });
    setTimeout(() => stop.abort("changed my mind"), 700);
    const ended = await call.then(() => "a result", (error) => error);
    if (!String(ended.message ?? ended).includes("changed my mind")) throw ended;
  }

  // As a program that ends and starts again: its session ends, too.
  async reconnect() {
    if (era === "legacy" && !this.lost) await this.transport.terminateSession();
    this.lost = true;
    const { client } = this;
    this.client = undefined;
    await client?.close();
    this.build();
    await this.client.connect(this.transport);
    this.lost = false;
  }
}

// Returns the number of notifications; waits at most `seconds` for the first.
async function soon(heard, seconds) {
  for (let n = 0; n < 10 * seconds && heard() === 0; n++) await new Promise((on) => setTimeout(on, 100));
  return heard();
}

// A stream that breaks without a result ends no call in some SDKs; no call takes this long.
async function inTime(action) {
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error("nothing within 20 s")), 20_000)));
  return await Promise.race([action, late]).finally(() => clearTimeout(timer));
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
