/** @swtdx/x86: the instruction set: register file, decoding, semantics, interpreter. */
export * from "./register-file.js";
