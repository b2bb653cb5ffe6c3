/** All semantics that are generated code, by instruction name. */
import type { Semantics } from "../emit/context.js";
import { arithmetic } from "./arithmetic.js";
import { bitOperations } from "./bits.js";
import { control } from "./control.js";
import { move } from "./move.js";
import { multiplication } from "./multiply.js";
import { shifts } from "./shift.js";
import { vectorCrypto } from "./vector-crypto.js";
import { vectorFloat } from "./vector-float.js";
import { vectorInteger } from "./vector-integer.js";
import { vectorString } from "./vector-string.js";
import { strings } from "./string.js";

export const semantics: Semantics = {
  ...arithmetic,
  ...move,
  ...shifts,
  ...bitOperations,
  ...multiplication,
  ...control,
  ...strings,
  ...vectorInteger,
  ...vectorFloat,
  ...vectorCrypto,
  ...vectorString,
};
