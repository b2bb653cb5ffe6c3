/**
 * Application processors wait at the TD mailbox until software wakes them.
 * Source: ACPI 6.5, ch. 5.2.12.19 (multiprocessor wakeup); OvmfPkg/TdxDxe (edk2).
 */
import { guest, type Guest } from "@swtdx/abi";
import { MAILBOX } from "../image/layout.js";

const AT = { command: 0, apicId: 4, wakeupVector: 8 } as const;
const COMMAND_WAKEUP = 1n;

/** Waits for a wakeup addressed to this processor, acknowledges it and jumps to its vector. */
export function* waitAtMailbox(apicId: number): Guest<never> {
  const mailbox = BigInt(MAILBOX);
  for (;;) {
    const command = yield* guest.load(mailbox + BigInt(AT.command), 2);
    if (
      command === COMMAND_WAKEUP &&
      (yield* guest.load(mailbox + BigInt(AT.apicId), 4)) === BigInt(apicId)
    ) {
      const vector = yield* guest.load(mailbox + BigInt(AT.wakeupVector), 8);
      yield* guest.store(mailbox + BigInt(AT.command), 2, 0n);
      yield* guest.jump(vector, {});
    }
    yield* guest.pause();
  }
}
