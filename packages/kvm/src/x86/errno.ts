/** A request failed in the kernel: carries the errno that the caller gets, negated. Caught at the ioctl's entry. */
export class KernelError extends Error {
  override readonly name = "KernelError";
  /** @param errno positive */
  constructor(readonly errno: number) {
    super(`errno ${errno}`);
  }
}
