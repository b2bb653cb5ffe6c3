/** Serves QMP on a socket: `unix:PATH` or `tcp:HOST:PORT`, as QEMU's -qmp names them. */
import { createServer, type Server, type Socket } from "node:net";
import { type Machine, QmpSession } from "@swtdx/qemu";
import { UsageError } from "../errors.js";

type Address = { path: string } | { host: string; port: number };

/** @throws UsageError */
export function qmpAddress(text: string): Address {
  const unix = /^unix:(.+)$/.exec(text);
  if (unix) return { path: unix[1] };
  const tcp = /^tcp:(.*):(\d+)$/.exec(text);
  const port = Number(tcp?.[2]);
  if (!tcp || port > 65535) throw new UsageError(`--qmp: "${text}" is not unix:PATH or tcp:HOST:PORT`);
  return { host: tcp[1] || "localhost", port };
}

/** Listens until it is closed; each connection is a session of its own. @throws UsageError */
export async function serveQmp(machine: Machine, text: string): Promise<{ close(): void }> {
  const address = qmpAddress(text);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const session = new QmpSession(machine, (line) => socket.write(line));
    socket.setEncoding("utf8");
    socket.on("data", (data) => session.receive(String(data)));
    // A client that goes away takes its session along, nothing else.
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      session.close();
      sockets.delete(socket);
    });
  });
  await listen(server, address, text);
  return {
    close() {
      server.close();
      for (const socket of sockets) socket.end();
    },
  };
}

const listen = (server: Server, address: Address, text: string): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once("error", (error) => reject(new UsageError(`--qmp: ${text}: ${error.message}`)));
    server.listen(address, resolve);
  });
