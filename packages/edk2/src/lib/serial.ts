/** Debug output and console on COM1 (16550), as OVMF's SerialDxe drives it. */
import type { Guest } from "@swtdx/abi";
import { ioRead, ioWrite } from "./tdx.js";

const COM1 = 0x3f8;
const LCR = 3;
const LSR = 5;
const THRE = 0x20;

/** 115200 8N1, FIFOs on. */
export function* initSerial(): Guest<void> {
  yield* ioWrite(COM1 + LCR, 1, 0x80);
  yield* ioWrite(COM1, 1, 1);
  yield* ioWrite(COM1 + 1, 1, 0);
  yield* ioWrite(COM1 + LCR, 1, 0x03);
  yield* ioWrite(COM1 + 2, 1, 0x07);
}

/** Prints `text`; a line feed becomes CR LF. */
export function* print(text: string): Guest<void> {
  for (const byte of new TextEncoder().encode(text.replace(/\n/g, "\r\n"))) {
    for (let tries = 0; tries < 1000 && ((yield* ioRead(COM1 + LSR, 1)) & THRE) === 0; tries++);
    yield* ioWrite(COM1, 1, byte);
  }
}
