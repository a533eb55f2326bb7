// Clients that call continuously: node load_clients.mjs URL CLIENTS EVERY_MS
//
// Each client has a session and listens on a stream. The first calls a tool that takes 600 ms, the
// others a tool that responds at once. The program prints one line when all clients are connected,
// and one with the results at the end of stdin.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, clients, every] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const seen = { calls: 0, slow: 0, failures: [], longest: 0 };
let over = false;
process.stdin.on("end", () => (over = true)).resume();

const pause = (ms) => new Promise((go) => setTimeout(go, ms));

async function join() {
  const client = new Client({ name: "crowd", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(url));
  await client.connect(transport);
  return { client, session: transport.sessionId };
}

async function call({ client }, slow) {
  const quick = { name: "echo", arguments: { message: "hello" } };
  const begun = performance.now();
  try {
    await client.callTool(slow ? { name: "slow", arguments: { ms: 600 } } : quick);
    seen.calls += 1;
    seen.slow += slow ? 1 : 0;
  } catch (error) {
    const what = `${slow ? "slow" : "echo"} after ${Math.round(performance.now() - begun)} ms`;
    seen.failures.push(`${new Date().toISOString()} ${what}: ${error} ${error.cause ?? ""}`);
  }
  const took = performance.now() - begun - (slow ? 600 : 0);
  seen.longest = Math.max(seen.longest, Math.round(took));
  return took;
}

async function work(guest, slow) {
  await pause(Math.random() * every);
  while (!over) {
    const took = await call(guest, slow);
    await pause(Math.max(0, every - took));
  }
}

const guests = [];
for (let index = 0; index < clients; index += 1) guests.push(await join());
console.log(JSON.stringify({ joined: guests.length, sessions: guests.filter((it) => it.session).length }));
await Promise.all(guests.map((guest, index) => work(guest, index === 0)));
console.log(JSON.stringify(seen));
process.exit(0);
