import { tsupConfig } from "../../tools/tsup.base.js";

export default tsupConfig(["src/index.ts"]);
