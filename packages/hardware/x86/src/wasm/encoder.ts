/**
 * Encoder of WebAssembly modules: sections, functions, imports and exports.
 *
 * Follows the WebAssembly core specification 2.0, chapter 5 (binary format). Only what the engine generates.
 */

/** Value types, and the block type without a result. */
export const I32 = 0x7f;
export const I64 = 0x7e;
export const F32 = 0x7d;
export const F64 = 0x7c;
export const V128 = 0x7b;
export const VOID = 0x40;
export type ValType = typeof I32 | typeof I64 | typeof F32 | typeof F64 | typeof V128;

/** A growing buffer of bytes. */
export class Bytes {
  data = new Uint8Array(256);
  length = 0;

  byte(value: number): void {
    if (this.length === this.data.length) this.grow(this.length + 1);
    this.data[this.length++] = value;
  }
  append(bytes: Uint8Array): void {
    if (this.length + bytes.length > this.data.length) this.grow(this.length + bytes.length);
    this.data.set(bytes, this.length);
    this.length += bytes.length;
  }
  /** Unsigned LEB128 of a value below 2^32. */
  u32(value: number): void {
    let v = value >>> 0;
    while (v >= 0x80) {
      this.byte((v & 0x7f) | 0x80);
      v >>>= 7;
    }
    this.byte(v);
  }
  /** Signed LEB128 of a 32-bit value. */
  s32(value: number): void {
    let v = value | 0;
    for (;;) {
      const low = v & 0x7f;
      v >>= 7;
      if ((v === 0 && !(low & 0x40)) || (v === -1 && low & 0x40)) return this.byte(low);
      this.byte(low | 0x80);
    }
  }
  /** Signed LEB128 of a 64-bit value. */
  s64(value: bigint): void {
    let v = BigInt.asIntN(64, value);
    for (;;) {
      const low = Number(v & 0x7fn);
      v >>= 7n;
      if ((v === 0n && !(low & 0x40)) || (v === -1n && low & 0x40)) return this.byte(low);
      this.byte(low | 0x80);
    }
  }
  name(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u32(bytes.length);
    this.append(bytes);
  }
  view(): Uint8Array<ArrayBuffer> {
    return this.data.slice(0, this.length);
  }
  private grow(needed: number): void {
    const bigger = new Uint8Array(Math.max(needed, this.data.length * 2));
    bigger.set(this.data.subarray(0, this.length));
    this.data = bigger;
  }
}

/** One function's signature. */
export interface Signature {
  readonly params: readonly ValType[];
  readonly results: readonly ValType[];
}

/** A function body in the making; `Code` (expr.ts) writes into it. */
export interface FunctionBody {
  readonly signature: Signature;
  /** Types of the locals behind the parameters. */
  readonly locals: ValType[];
  readonly code: Bytes;
}

/** A module: imports first, then functions; one imported memory, optionally one table filled with functions. */
export class ModuleBuilder {
  private readonly types: string[] = [];
  private readonly typeBytes = new Bytes();
  private readonly imports: { module: string; name: string; type: number }[] = [];
  private readonly functions: { type: number; body: FunctionBody }[] = [];
  private readonly exports: { name: string; index: number }[] = [];
  private table: number[] = [];
  private memory:
    { module: string; name: string; initial: number; maximum: number; shared: boolean } | undefined;

  /** Index of a signature in the type section. */
  type(signature: Signature): number {
    const key = `${signature.params.join()}>${signature.results.join()}`;
    const found = this.types.indexOf(key);
    if (found >= 0) return found;
    this.types.push(key);
    this.typeBytes.byte(0x60);
    this.typeBytes.u32(signature.params.length);
    for (const t of signature.params) this.typeBytes.byte(t);
    this.typeBytes.u32(signature.results.length);
    for (const t of signature.results) this.typeBytes.byte(t);
    return this.types.length - 1;
  }
  /** @param initial @param maximum in pages of 64 KiB */
  importMemory(module: string, name: string, initial: number, maximum: number, shared: boolean): void {
    this.memory = { module, name, initial, maximum, shared };
  }
  /** All imports must precede the first function. Returns the function index. */
  importFunction(module: string, name: string, signature: Signature): number {
    if (this.functions.length > 0) throw new RangeError("imports must precede functions");
    this.imports.push({ module, name, type: this.type(signature) });
    return this.imports.length - 1;
  }
  /** Adds a function whose body may be written until `encode`. Returns the function index. */
  addFunction(body: FunctionBody): number {
    this.functions.push({ type: this.type(body.signature), body });
    return this.imports.length + this.functions.length - 1;
  }
  exportFunction(name: string, index: number): void {
    this.exports.push({ name, index });
  }
  /** Function indexes that call_indirect reaches, by table index. */
  setTable(functions: number[]): void {
    this.table = functions;
  }

  encode(): Uint8Array<ArrayBuffer> {
    const out = new Bytes();
    out.append(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
    const section = (id: number, content: Bytes) => {
      out.byte(id);
      out.u32(content.length);
      out.append(content.view());
    };
    const types = new Bytes();
    types.u32(this.types.length);
    types.append(this.typeBytes.view());
    section(1, types);

    const imports = new Bytes();
    imports.u32(this.imports.length + (this.memory ? 1 : 0));
    for (const { module, name, type } of this.imports) {
      imports.name(module);
      imports.name(name);
      imports.byte(0);
      imports.u32(type);
    }
    if (this.memory) {
      imports.name(this.memory.module);
      imports.name(this.memory.name);
      imports.byte(2);
      imports.byte(this.memory.shared ? 3 : 1);
      imports.u32(this.memory.initial);
      imports.u32(this.memory.maximum);
    }
    section(2, imports);

    const functions = new Bytes();
    functions.u32(this.functions.length);
    for (const { type } of this.functions) functions.u32(type);
    section(3, functions);

    if (this.table.length > 0) {
      const table = new Bytes();
      table.u32(1);
      table.byte(0x70);
      table.byte(0);
      table.u32(this.table.length);
      section(4, table);
    }

    const exports = new Bytes();
    exports.u32(this.exports.length);
    for (const { name, index } of this.exports) {
      exports.name(name);
      exports.byte(0);
      exports.u32(index);
    }
    section(7, exports);

    if (this.table.length > 0) {
      const elements = new Bytes();
      elements.u32(1);
      elements.byte(0);
      elements.byte(0x41);
      elements.s32(0);
      elements.byte(0x0b);
      elements.u32(this.table.length);
      for (const index of this.table) elements.u32(index);
      section(9, elements);
    }

    const code = new Bytes();
    code.u32(this.functions.length);
    for (const { body } of this.functions) {
      const fn = new Bytes();
      const runs: { type: ValType; count: number }[] = [];
      for (const type of body.locals) {
        const last = runs[runs.length - 1];
        if (last?.type === type) last.count++;
        else runs.push({ type, count: 1 });
      }
      fn.u32(runs.length);
      for (const { type, count } of runs) {
        fn.u32(count);
        fn.byte(type);
      }
      fn.append(body.code.view());
      code.u32(fn.length);
      code.append(fn.view());
    }
    section(10, code);
    return out.view();
  }
}
