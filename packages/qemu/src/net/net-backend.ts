/** What a network card is plugged into. Frames are Ethernet II, without preamble and frame check sequence. */

import type { Timers } from "../clock.js";

export interface NetCard {
  /** Six bytes. */
  readonly mac: Uint8Array;
  /** A frame for the guest. @returns false when it was lost: the card's queue is full. */
  receive(frame: Uint8Array): boolean;
}

export interface NetBackend {
  /** The card is plugged in; called once, before anything is sent. `timers` run on the machine's time. */
  connect(card: NetCard, timers: Timers): void;
  /** The guest sends a frame. */
  transmit(frame: Uint8Array): void;
}
