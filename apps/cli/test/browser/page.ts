/** The page: files are fetched, the machine runs in a worker. */
import type { Report, Request } from "./machines.js";

/** A request as the test can hand it over: bytes as arrays of numbers or as the URL they are fetched from. */
export type PageRequest = {
  [Key in keyof Request]: Request[Key] extends Uint8Array | undefined ? string | number[] : Request[Key];
};

async function bytes(source: string | number[] | undefined): Promise<Uint8Array | undefined> {
  if (typeof source !== "string") return source && Uint8Array.from(source);
  const response = await fetch(source);
  if (!response.ok) throw new Error(`${source}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function run(request: PageRequest): Promise<Report> {
  const { bios, kernel, initrd, ...rest } = request;
  const [biosBytes, kernelBytes, initrdBytes] = await Promise.all([bios, kernel, initrd].map(bytes));
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  try {
    return await new Promise<Report>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<Report>) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage({ ...rest, bios: biosBytes, kernel: kernelBytes, initrd: initrdBytes });
    });
  } finally {
    worker.terminate();
  }
}

Object.assign(globalThis, { swtdxRun: run });
