/** Runs machines off the page's thread. */
import { type Request, runMachine } from "./machines.js";

addEventListener("message", ({ data }: MessageEvent<Request>) => {
  runMachine(data).then(postMessage, (error: unknown) => reportError(error));
});
