/** @swtdx/x86: the instruction set: register file, decoding, semantics, interpreter. */
export * from "./register-file.js";
export * from "./bits.js";
export * from "./environment.js";
export * from "./code-frames.js";
export { X86Core, Stop, type X86CoreOptions, type Fill, type EngineEvent } from "./core.js";
export { FlatEnvironment, type FlatOptions } from "./flat-environment.js";
export { Decoder, Decoded, CodeSize } from "./decode/decoder.js";
export { buildOpcodeTable, type OpcodeForm, type OpcodeTable } from "./decode/opcode-table.js";
export { Access, Vector, Status, Mode } from "./layout.js";
export { EventType } from "./system/interrupts.js";
