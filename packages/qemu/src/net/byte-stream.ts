/** One end of a connection that carries bytes in both directions: TCP, vsock, a console port. */

export interface ByteStream {
  /** Who is at the other end, for people: `10.0.2.15:49152`, `cid 3 port 1024`. */
  readonly peer: string;
  /** Sends bytes; they are kept until the other end takes them. Nothing happens after `end`. */
  write(data: Uint8Array): void;
  /** No more will be written. */
  end(): void;
  /** Breaks the connection. */
  abort(): void;
  /** Set by the owner. */
  onData: (data: Uint8Array) => void;
  /** The other end will write no more. */
  onEnd: () => void;
  /** The connection is gone: both ends were ended, or it broke. Called once. */
  onClose: () => void;
}
