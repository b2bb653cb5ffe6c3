/** The console on COM1 (16550), driven with IN and OUT: in a TD each becomes a #VE. Linux: drivers/tty/serial/8250. */
import { guest, type Guest } from "@swtdx/abi";

const COM1 = 0x3f8;
const LSR = COM1 + 5;
const THRE = 0x20;
/** Bytes that an empty transmitter takes: its FIFO. */
const FIFO = 16;
/** Polls before a stuck transmitter is written to anyway. */
const MAX_POLLS = 1000;

export function* serialWrite(text: string): Guest<void> {
  const bytes = new TextEncoder().encode(text.replace(/\n/g, "\r\n"));
  for (let at = 0; at < bytes.length; at += FIFO) {
    for (let polls = 0; polls < MAX_POLLS && ((yield* guest.in(LSR, 1)) & THRE) === 0; polls++);
    for (const byte of bytes.subarray(at, at + FIFO)) yield* guest.out(COM1, 1, byte);
  }
}
