// Preloaded before a third-party program.
import { webcrypto } from "node:crypto";
import { File } from "node:buffer";
import net from "node:net";

// These programs listen on all addresses and have no setting for it. A test must use loopback only.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const done = rest.find((it) => typeof it === "function");
  return listen.call(this, { host: "127.0.0.1", port: Number(port) }, done);
};

// These programs require these globals, which Node 18 in Debian 12 does not define.
globalThis.crypto ??= webcrypto;
globalThis.File ??= File;
