/**
 * The machine's clock and timers. Time is virtual: nanoseconds that follow the host's TSC, which counts what the
 * processors execute, so that a run is the same every time.
 */

/** Nanoseconds since the machine was built, as a number (good for 104 days). */
export type Now = () => number;

export interface Timer {
  /** Arms the timer for `deadline` in nanoseconds of virtual time, or disarms it with null. */
  set(deadline: number | null): void;
}

/** Timers by deadline; the machine's loop runs those that are due. */
export class Timers {
  readonly #armed = new Map<object, { deadline: number; callback: () => void }>();

  constructor(readonly now: Now) {}

  create(callback: () => void): Timer {
    const key = {};
    return {
      set: (deadline) => {
        if (deadline === null) this.#armed.delete(key);
        else this.#armed.set(key, { deadline, callback });
      },
    };
  }

  /** The nearest deadline, or null when no timer is armed. */
  next(): number | null {
    let nearest: number | null = null;
    for (const { deadline } of this.#armed.values())
      if (nearest === null || deadline < nearest) nearest = deadline;
    return nearest;
  }

  /** Runs the callbacks of all timers that are due, the earliest first. */
  run(): void {
    if (this.#armed.size === 0) return;
    const now = this.now();
    const due = [...this.#armed].filter(([, timer]) => timer.deadline <= now);
    due.sort(([, a], [, b]) => a.deadline - b.deadline);
    for (const [key, timer] of due) {
      if (this.#armed.get(key) !== timer) continue;
      this.#armed.delete(key);
      timer.callback();
    }
  }
}
