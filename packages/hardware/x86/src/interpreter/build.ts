/**
 * Generates the interpreter: one wasm function whose loop branches by the handler number of the current record. Hot
 * handlers are cases of it; all others are functions in a table, some of which only call TypeScript.
 */
import { buildOpcodeTable, handlerKey, type OpcodeForm, type OpcodeTable } from "../decode/opcode-table.js";
import { ColdContext, type EngineLayout, HotContext } from "../emit/interpreter-context.js";
import { ENGINE, RECORD, RECORD_SIZE, Status } from "../layout.js";
import { REG } from "../register-file.js";
import { semantics } from "../semantics/index.js";
import { I32, I64, ModuleBuilder, type ValType, VOID } from "../wasm/encoder.js";
import { call, callIndirect, Code, i32, type Label, LOAD, STORE } from "../wasm/expr.js";
import { buildHelpers } from "./helpers.js";

/** Handlers that are not instructions. */
export const Handler = {
  /** Goes on at TARGET, or looks up RIP_BASE + OFFSET. */
  LINK: 0,
  /** Leaves with Status.BUDGET at RIP_BASE + OFFSET. */
  STOP: 1,
  FIRST: 2,
} as const;

/** Names of instructions served by TypeScript, in the order of their numbers for the `operation` import. */
export interface BuildOptions {
  readonly operations: readonly string[];
  /** Address of the register file, of the scratch buffer, of the jump cache. */
  readonly core: number;
  readonly scratch: number;
  readonly jumps: number;
  /** Instructions that raise #UD because CPUID does not offer them, by name. */
  readonly absent?: ReadonlySet<string>;
}
export interface Built {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly table: OpcodeTable;
  /** Handler of an undefined opcode and of an instruction that is too long. */
  readonly undefinedHandler: number;
  readonly tooLongHandler: number;
  /** Keys by handler number, for tests and disassembly. */
  readonly keys: readonly string[];
  readonly hotCount: number;
}

/** What belongs in the dispatch loop, by handler key. */
const HOT = [
  /^(add|sub|and|or|xor|cmp|test):(r|m)(8|32|64),(b|m)\d+$/,
  /^(mov):(r|m)(8|16|32|64),(b|m)\d+$/,
  /^(adc|sbb):r(32|64),b\d+$/,
  /^(movzx|movsx|movsxd):r(32|64),(b|m)(8|16|32)$/,
  /^lea:r(32|64),/,
  /^push:(r64|i64)$/,
  /^pop:r64$/,
  /^(call|jmp):(j64|r64|m64|j32)$/,
  /^ret:v64$/,
  /^leave:v64$/,
  /^j(o|no|b|nb|z|nz|be|nbe|s|ns|p|np|l|nl|le|nle):j(64|32)$/,
  /^set\w+:r8$/,
  /^cmov\w+:r(32|64),b\d+$/,
  /^(inc|dec|neg|not):(r32|r64|m32|m64)$/,
  /^(shl|shr|sar|rol|ror):r(32|64),b8$/,
  /^imul:r(32|64),(b|m)\d+(,i)?$/,
  /^(bt|bti):r(32|64),b\d+$/,
  /^(nop|xchgz):/,
  /^(cwd|cbw):v(32|64)$/,
  /^(add|sub|mul|div)sd:x,(y|m64)$/,
  /^mov(ups|aps|dqu|dqa):(x,y|x,m128|m128,y)$/,
  /^movsd:(x,y|x,m64|m64,y)$/,
  /^u?comisd:x,y$/,
  /^bswap:r(32|64)$/,
];

interface Entry {
  readonly key: string;
  readonly name: string;
  readonly operandSize: number;
  readonly memory: boolean;
}
const places = (key: string) =>
  key
    .slice(key.indexOf(":") + 1)
    .split(",")
    .filter((text) => text !== "" && text !== "-")
    .map((text) => ({ kind: text[0], bits: Number(text.slice(1) || 0) }));

export function buildInterpreter(options: BuildOptions): Built {
  const { core, scratch, jumps } = options;
  const table = buildOpcodeTable();
  const module = new ModuleBuilder();
  module.importMemory("engine", "memory", 1, 65536, false);
  const functions = new Map<string, { index: number; result: ValType | 0x40 }>();
  const imported = (name: string, params: (typeof I32)[], result: typeof I32 | 0x40) => {
    const signature = { params, results: result === VOID ? [] : [I32 as typeof I32] };
    functions.set(name, { index: module.importFunction("engine", name, signature), result });
  };
  imported("slow", [I32, I32, I32, I32], I32);
  imported("segmentCheck", [I32, I32, I32], I32);
  imported("find", [I32], I32);
  imported("resolveInPage", [I32], I32);
  imported("operation", [I32, I32], I32);
  imported("commit", [], VOID);
  imported("waits", [], I32);
  imported("enterMmx", [], VOID);
  imported("float", [I32, I32, I32, I32], I32);
  buildHelpers(module, functions, core, jumps);
  const layout: EngineLayout = { core, scratch, functions };

  // Operations in TypeScript are told the operand size by their handler.
  const fullKey = (form: OpcodeForm, operandSize: number, memory: boolean) =>
    handlerKey(form, operandSize, memory) + (options.operations.includes(form.name) ? `@${operandSize}` : "");
  const missing = (form: OpcodeForm) => options.absent?.has(form.name) ?? false;
  // Number the handlers: hot ones first.
  const entries = new Map<string, Entry>();
  for (const forms of table) {
    for (const form of forms ?? []) {
      for (const operandSize of [16, 32, 64]) {
        for (const memory of [false, true]) {
          if (form.hasModrm ? !(memory ? form.memForm : form.regForm) : memory) continue;
          const known = form.name in semantics || options.operations.includes(form.name);
          if (!known || missing(form)) continue;
          const key = fullKey(form, operandSize, memory);
          if (!entries.has(key)) entries.set(key, { key, name: form.name, operandSize, memory });
        }
      }
    }
  }
  const isHot = (e: Entry) => e.name in semantics && HOT.some((pattern) => pattern.test(e.key));
  const hot = [...entries.values()].filter(isHot);
  const cold = [...entries.values()].filter((e) => !isHot(e));
  for (const name of ["undefined", "tooLong"]) {
    cold.push({ key: `${name}:`, name, operandSize: 32, memory: false });
  }
  const keys = ["link", "stop", ...hot.map((e) => e.key), ...cold.map((e) => e.key)];
  const numbers = new Map(keys.map((key, i) => [key, i]));
  const undefinedHandler = numbers.get("undefined:")!;
  for (const forms of table) {
    for (const form of forms ?? []) {
      for (let size = 0; size < 3; size++) {
        for (let memory = 0; memory < 2; memory++) {
          const key = fullKey(form, 16 << size, memory === 1);
          form.handlers[size * 2 + memory] = missing(form)
            ? undefinedHandler
            : (numbers.get(key) ?? undefinedHandler);
        }
      }
    }
  }

  // The functions of the cold ones.
  const coldIndexes = cold.map((entry) => {
    const code = new Code({ params: [I32], results: [I32] });
    const emitter = semantics[entry.name];
    if (emitter) {
      const context = new ColdContext(code, layout);
      context.operands = places(entry.key);
      emitter(context);
      context.next();
    } else {
      const number = options.operations.indexOf(entry.name);
      const argument = number | (Math.log2(entry.operandSize / 16) << 12) | (entry.memory ? 1 << 14 : 0);
      code.return(call(functions.get("operation")!.index, I32, code.param(0), i32(argument)));
    }
    code.unreachable();
    code.finish();
    return module.addFunction(code);
  });
  module.setTable(coldIndexes);
  const coldType = module.type({ params: [I32], results: [I32] });

  // The dispatch loop.
  const code = new Code({ params: [], results: [I32] });
  const pc = code.local(I32);
  const start = code.local(I32);
  const budget = code.local(I32);
  const target = code.local(I32);
  const status = code.local(I32);
  const tlb = code.local(I32);
  const z = code.local(I64);
  const s = code.local(I64);
  const c = code.local(I64);
  const at = (offset: number) => core + offset;
  const store32 = (offset: number, value: ReturnType<typeof i32>) =>
    code.store(STORE.i32, i32(0), value, at(offset));
  const store64 = (offset: number, value: ReturnType<typeof i32>) =>
    code.store(STORE.i64, i32(0), value, at(offset));
  const load32 = (offset: number) => i32(0).load(LOAD.i32, at(offset));
  const load64 = (offset: number) => i32(0).load(LOAD.i64, at(offset));
  const spillFlags = () => {
    store64(ENGINE.FLAG_Z, z);
    store64(ENGINE.FLAG_S, s);
    store64(ENGINE.FLAG_C, c);
  };
  const reload = () => {
    code.set(z, load64(ENGINE.FLAG_Z));
    code.set(s, load64(ENGINE.FLAG_S));
    code.set(c, load64(ENGINE.FLAG_C));
    code.set(tlb, load32(ENGINE.TLB));
  };
  const spillRip = () =>
    store64(
      REG.RIP,
      load64(ENGINE.RIP_BASE).add(pc.load(LOAD.i64_16u, RECORD.OFFSET)).and(load64(ENGINE.RIP_MASK)),
    );
  /** Counts the records from the block's start up to this one, without it. */
  const countBefore = () => code.set(budget, budget.sub(pc.sub(start)));
  const helper = (name: string, ...operands: ReturnType<typeof i32>[]) => {
    const f = functions.get(name)!;
    return call(f.index, f.result as typeof I32, ...operands);
  };
  const leave = (value: ReturnType<typeof i32>) => {
    spillFlags();
    store32(ENGINE.BUDGET, budget);
    code.return(value);
  };

  reload();
  code.set(budget, load32(ENGINE.BUDGET));
  code.set(pc, helper("lookup", load64(REG.RIP)));
  code.if(pc.eqz(), () => leave(load32(ENGINE.STATUS)));
  code.set(start, pc);
  code.loop((dispatch) => {
    const transfer = code.open();
    const fault = code.open();
    const coldLabel = code.open();
    const count = Handler.FIRST + hot.length;
    const labels: Label[] = [];
    for (let i = count - 1; i >= 0; i--) labels[i] = code.open();
    code.brTable(pc.load(LOAD.i32_16u, RECORD.HANDLER), labels, coldLabel);
    code.end();
    // LINK
    countBefore();
    code.set(target, pc.load(LOAD.i32, RECORD.TARGET));
    code.if(target.eqz(), () => {
      const rip = load64(ENGINE.RIP_BASE)
        .add(pc.load(LOAD.i64_16u, RECORD.OFFSET))
        .and(load64(ENGINE.RIP_MASK));
      code.if(target.tee(helper("lookup", rip)).eqz(), () => leave(load32(ENGINE.STATUS)));
    });
    code.set(start, pc.tee(target));
    code.br(dispatch);
    code.end();
    // STOP
    countBefore();
    spillRip();
    leave(i32(Status.BUDGET));
    code.end();
    const context = new HotContext(code, pc, tlb, [z, s, c], layout, { dispatch, fault, transfer }, target);
    hot.forEach((entry, i) => {
      code.releaseTemporaries();
      context.operands = places(entry.key);
      context.undo = undefined;
      semantics[entry.name](context);
      context.next();
      if (i < hot.length - 1) code.end();
    });
    code.end();
    // The rest: functions.
    spillRip();
    spillFlags();
    store32(ENGINE.BUDGET, budget.sub(pc.sub(start)));
    code.set(status, callIndirect(coldType, I32, pc.load(LOAD.i32_16u, RECORD.HANDLER).sub(count), pc));
    reload();
    code.if(status.eqz(), () => {
      code.set(pc, pc.add(RECORD_SIZE));
      code.br(dispatch);
    });
    code.if(status.eq(Status.JUMP), () => {
      code.set(target, helper("lookup", load64(REG.RIP)));
      code.set(tlb, load32(ENGINE.TLB));
      code.br(transfer);
    });
    code.if(status.eq(Status.AGAIN), () => {
      countBefore();
      code.set(start, pc);
      code.set(budget, budget.sub(RECORD_SIZE));
      store32(ENGINE.EXTRA, load32(ENGINE.EXTRA).add(1));
      code.brIf(budget.gt_s(0), dispatch);
      leave(i32(Status.BUDGET));
    });
    code.if(status.eq(Status.ATTENTION), () => {
      code.set(budget, budget.sub(pc.sub(start).add(RECORD_SIZE)));
      leave(status);
    });
    countBefore();
    leave(status);
    code.end();
    // fault: the instruction has not been executed.
    countBefore();
    spillRip();
    leave(load32(ENGINE.STATUS));
    code.end();
    // transfer: the instruction is complete; `target` is the next one, or 0 if there is none.
    code.set(budget, budget.sub(pc.sub(start).add(RECORD_SIZE)));
    code.if(target.eqz(), () => leave(load32(ENGINE.STATUS)));
    code.set(start, pc.tee(target));
    code.brIf(budget.gt_s(0), dispatch);
    spillRip();
    leave(i32(Status.BUDGET));
  });
  code.unreachable();
  code.finish();
  for (const name of ["memory", "linear", "segment", "address"]) {
    module.exportFunction(name, functions.get(name)!.index);
  }
  module.exportFunction("run", module.addFunction(code));
  return {
    bytes: module.encode(),
    table,
    undefinedHandler,
    tooLongHandler: numbers.get("tooLong:")!,
    keys,
    hotCount: count(hot),
  };
}
const count = (list: unknown[]) => list.length + Handler.FIRST;
