// Loaded before a program that we did not write.
import { webcrypto } from "node:crypto";
import { File } from "node:buffer";
import net from "node:net";

// They listen on every address and have no setting for it. A test must not.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const done = rest.find((it) => typeof it === "function");
  return listen.call(this, { host: "127.0.0.1", port: Number(port) }, done);
};

// They count on these; the Node 18 of Debian 12 has them elsewhere.
globalThis.crypto ??= webcrypto;
globalThis.File ??= File;
