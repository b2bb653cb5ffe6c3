/** Runs a part of a guest program against a function that answers its operations. */
import type { Guest, GuestOp } from "@swtdx/abi";

export function runGuest<T>(part: Guest<T>, answer: (op: GuestOp) => unknown, limit = 1_000_000): T {
  let next = part.next();
  for (let steps = 0; !next.done; steps++) {
    if (steps > limit) throw new Error("the program does not end");
    next = part.next(answer(next.value));
  }
  return next.value;
}

/** Flat memory below `bytes`, and nothing else; other operations go to `other`. */
export function flatMemory(bytes: number, other: (op: GuestOp) => unknown = () => undefined) {
  const memory = new Uint8Array(bytes);
  const view = new DataView(memory.buffer);
  const answer = (op: GuestOp): unknown => {
    switch (op.op) {
      case "load": {
        const wide = new Uint8Array(8);
        wide.set(memory.subarray(Number(op.gla), Number(op.gla) + op.size));
        return new DataView(wide.buffer).getBigUint64(0, true);
      }
      case "store": {
        const wide = new Uint8Array(8);
        new DataView(wide.buffer).setBigUint64(0, BigInt.asUintN(64, op.value), true);
        memory.set(wide.subarray(0, op.size), Number(op.gla));
        return undefined;
      }
      case "loadBytes":
        return memory.slice(Number(op.gla), Number(op.gla) + op.length);
      case "storeBytes":
        memory.set(op.bytes, Number(op.gla));
        return undefined;
      default:
        return other(op);
    }
  };
  return { memory, view, answer };
}
