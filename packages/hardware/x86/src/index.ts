/** @swtdx/x86: the x86 instruction set: decoding, semantics, interpreter, WebAssembly JIT, register file. */

export {};
