import { describe, expect, test } from "vitest";
import fc from "fast-check";
import {
  QGS_MSG_ERROR,
  QGS_MSG_GET_COLLATERAL_REQ,
  QGS_MSG_GET_COLLATERAL_RESP,
  QGS_MSG_GET_PLATFORM_INFO_RESP,
  QGS_MSG_HEADER,
  QGS_MSG_TYPE,
} from "@swtdx/abi";
import { frameQgsMessage, getQuoteRequest, getQuoteResponse, Qgs } from "../src/index.js";
import { makePlatform, makeReport } from "./support/platform.js";

const platform = makePlatform();
const qgs = new Qgs({
  enclave: platform.enclave,
  pki: platform.pki,
  collateral: () => platform.collateral(),
});
const report = makeReport(platform.key);
const request = getQuoteRequest(report);

describe("GET_QUOTE", () => {
  test("a report gets its quote, in the bytes QEMU reads", () => {
    const response = qgs.handle(request);
    const view = new DataView(response.buffer);
    // Major and minor version, type, size, error; id size; quote size.
    expect([view.getUint16(0, true), view.getUint32(4, true), view.getUint32(8, true)]).toEqual([
      1,
      QGS_MSG_TYPE.GET_QUOTE_RESP,
      response.length,
    ]);
    expect([view.getUint32(12, true), view.getUint32(16, true)]).toEqual([0, 0]);
    expect(view.getUint32(20, true)).toBe(response.length - 24);
    expect(getQuoteResponse(response)).toEqual({ ok: true, quote: platform.quote() });
  });

  test("a report of another platform does not", () => {
    const other = qgs.handle(getQuoteRequest(makeReport(new Uint8Array(32))));
    expect(other.length).toBe(24);
    expect(getQuoteResponse(other)).toEqual({ ok: false, error: QGS_MSG_ERROR.UNEXPECTED });
  });

  const change = (at: number, value: number): Uint8Array => {
    const out = request.slice();
    out[at] = value;
    return out;
  };
  test.each([
    ["a size that is not the message's", change(8, 1), QGS_MSG_ERROR.INVALID_SIZE],
    ["an error code", change(12, 1), QGS_MSG_ERROR.INVALID_CODE],
    ["a report size that does not fit", change(16, 1), QGS_MSG_ERROR.INVALID_SIZE],
    ["an id list that is not there", change(20, 1), QGS_MSG_ERROR.INVALID_SIZE],
    ["no report", getQuoteRequest(new Uint8Array()), QGS_MSG_ERROR.INVALID_CODE],
    ["half a header", request.slice(0, 20), QGS_MSG_ERROR.INVALID_PARAMETER],
  ])("%s", (_, message, error) => {
    expect(getQuoteResponse(qgs.handle(message))).toEqual({ ok: false, error });
  });

  test.each([
    ["nothing", new Uint8Array()],
    ["a bare report", report],
    ["another major version", change(0, 2)],
    ["an unknown type", change(4, 9)],
    ["a response", change(4, 1)],
  ])("%s: the connection is closed without an answer", (_, message) => {
    expect(qgs.handle(message)).toEqual(new Uint8Array());
  });
});

test("GET_COLLATERAL gives the seven pieces", () => {
  const ask = (fmspc: Uint8Array): Uint8Array => {
    const ca = new TextEncoder().encode("platform\0");
    const size = 24 + fmspc.length + ca.length;
    const out = new Uint8Array(size);
    out.set(
      QGS_MSG_GET_COLLATERAL_REQ.encode({
        major_version: 1,
        type: QGS_MSG_TYPE.GET_COLLATERAL_REQ,
        size,
        fsmpc_size: fmspc.length,
        pckca_size: ca.length,
      }),
    );
    out.set(fmspc, 24);
    out.set(ca, 24 + fmspc.length);
    return qgs.handle(out);
  };
  const response = ask(platform.pki.platform.fmspc);
  const head = QGS_MSG_GET_COLLATERAL_RESP.decode(response);
  expect(head).toMatchObject({ error_code: 0, size: response.length });
  const collateral = platform.collateral();
  expect(head.pck_crl_size).toBe(collateral.pck_crl.length / 2);
  const text = new TextDecoder().decode(response);
  expect(text).toContain(`{"tcbInfo":${collateral.tcb_info},"signature":"${collateral.tcb_info_signature}"}`);
  expect(QGS_MSG_HEADER.decode(ask(Uint8Array.of(1, 2, 3, 4, 5, 6))).error_code).toBe(
    QGS_MSG_ERROR.UNEXPECTED,
  );
});

test("GET_PLATFORM_INFO", () => {
  const response = qgs.handle(
    QGS_MSG_HEADER.encode({ major_version: 1, type: QGS_MSG_TYPE.GET_PLATFORM_INFO_REQ, size: 16 }),
  );
  expect(QGS_MSG_GET_PLATFORM_INFO_RESP.decode(response)).toMatchObject({
    error_code: 0,
    pce_isvsvn: 13,
    platform_id_size: 16,
    cpusvn_size: 16,
  });
  expect(response.slice(28, 44)).toEqual(platform.enclave.qeId);
});

test("any bytes get an answer or none, never an exception", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(5), (bytes, type) => {
      qgs.handle(bytes);
      const message = new Uint8Array(16 + bytes.length);
      message.set(QGS_MSG_HEADER.encode({ major_version: 1, type, size: message.length }));
      message.set(bytes, 16);
      getQuoteResponse(qgs.handle(message));
      getQuoteResponse(message);
    }),
    { numRuns: 500 },
  );
});

test("on a stream the length goes before, big-endian", () => {
  expect(frameQgsMessage(new Uint8Array(0x1234)).slice(0, 4)).toEqual(Uint8Array.of(0, 0, 0x12, 0x34));
});
