/** The virtio entropy device. VIRTIO specification 1.2, 5.4. */
import type { VirtioBackend } from "./virtio-pci.js";
import type { Virtqueue } from "./virtqueue.js";

/** Most bytes for one request. */
const REQUEST_MAX = 65536;

export class VirtioRng implements VirtioBackend {
  readonly deviceType = 4;
  readonly name = "virtio-rng-pci";
  readonly pciClass = 0x00ff;
  readonly features = 0n;
  readonly queues = 1;
  readonly config = new Uint8Array();

  /** `random` gives that many bytes from the machine's one source. */
  constructor(private readonly random: (bytes: number) => Uint8Array) {}

  process(queue: Virtqueue): boolean {
    let interrupt = false;
    for (let request = queue.pop(); request !== null; request = queue.pop()) {
      const room = request.writable.reduce((sum, { length }) => sum + length, 0);
      const written = queue.scatter(request.writable, this.random(Math.min(room, REQUEST_MAX)));
      if (queue.push(request, written)) interrupt = true;
    }
    return interrupt;
  }
}
