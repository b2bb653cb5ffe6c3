/**
 * The firmware's programs and where their stubs are: the slot's index in this table gives the address that a
 * function pointer in a system table, boot services table or protocol holds.
 */
import { slotAddress } from "../image/layout.js";

/** In slot order; the first is the reset vector. */
export const PROGRAMS = [
  "SecEntry",
  "DxeMain",
  "OutputString",
  "AllocatePages",
  "FreePages",
  "GetMemoryMap",
  "HandleProtocol",
  "LocateProtocol",
  "LoadImage",
  "StartImage",
  "ExitBootServices",
  "GetCapability",
  "GetEventLog",
  "HashLogExtendEvent",
  "MapPcrToMrIndex",
  "OpenVolume",
  "FileOpen",
  "FileClose",
  "FileRead",
  "FileGetInfo",
  "LoadFile",
] as const;
export type ProgramName = (typeof PROGRAMS)[number];

/** The name under which an engine finds the program. */
export const registeredName = (name: ProgramName): string => `@swtdx/edk2:${name}`;

/** Address of a program's stub. */
export const programAddress = (name: ProgramName): number => slotAddress(PROGRAMS.indexOf(name));
