import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  AbortedError,
  ConfigError,
  DataError,
  errorCodes,
  errorFromCode,
  fromNative,
  IoError,
  ModelError,
  placeText,
  throwIfAborted,
  ZephyrError,
} from "./errors";

const native = (code: string, message: string) => Object.assign(new Error(message), { code });

describe("places", () => {
  it("prints what is known, in a fixed order", () => {
    expect(placeText({ file: "a.jsonl", row: 2, byte: 91, field: "messages[1].content" })).toBe(
      "a.jsonl:2 (byte 91), messages[1].content",
    );
    expect(placeText({ file: "a.json", element: 3 })).toBe("a.json element 3");
    expect(placeText({ tensor: "lm_head.weight" })).toBe("tensor lm_head.weight");
    expect(placeText({})).toBe("");
  });
});

describe("ZephyrError", () => {
  it("has place in message and code, place, text and remedy in toString", () => {
    const error = new DataError("ZA_DATA_ROW", "the field is missing", {
      place: { file: "a.jsonl", row: 2, field: "text" },
      remedy: "Add it.",
    });
    expect(error.message).toBe("a.jsonl:2, text: the field is missing");
    expect(error.problem).toBe("the field is missing");
    expect(String(error)).toBe("DataError [ZA_DATA_ROW] a.jsonl:2, text: the field is missing\n  Remedy: Add it.");
    expect(error).toBeInstanceOf(ZephyrError);
    expect(error).toBeInstanceOf(Error);
  });

  it("chooses the class by the code's prefix", () => {
    expect(errorFromCode("ZA_DATA_ROW", "x")).toBeInstanceOf(DataError);
    expect(errorFromCode("ZA_CONFIG_INVALID", "x")).toBeInstanceOf(ConfigError);
    expect(errorFromCode("ZA_TENSOR_SHAPE", "x")).toBeInstanceOf(ModelError);
    expect(errorFromCode("ZA_INTERNAL", "x").constructor).toBe(ZephyrError);
  });
});

describe("fromNative", () => {
  it("takes the code, the text and the remedy", () => {
    const error = fromNative(
      native("ZA_TENSOR_SHAPE", "tensor lm_head.weight: expected [2, 3], found [3, 3]. Remedy: Download again."),
    );
    expect(error).toBeInstanceOf(ModelError);
    expect(error.code).toBe("ZA_TENSOR_SHAPE");
    expect(error.message).toBe("tensor lm_head.weight: expected [2, 3], found [3, 3].");
    expect(error.remedy).toBe("Download again.");
  });

  it("takes a code written before the text", () => {
    expect(fromNative(new Error("ZA_TRAIN_NOT_FINITE: loss is NaN at step 3")).message).toBe("loss is NaN at step 3");
    expect(fromNative(new Error("[ZA_TRAIN_NOT_FINITE] loss is NaN")).code).toBe("ZA_TRAIN_NOT_FINITE");
  });

  it("keeps an error that already is one of ours", () => {
    const error = new DataError("ZA_DATA_ROW", "x");
    expect(fromNative(error)).toBe(error);
  });

  it("maps real file system errors", async () => {
    const thrown = await readFile("/nowhere/at/all").catch((error: unknown) => error);
    const error = fromNative(thrown);
    expect(error).toBeInstanceOf(IoError);
    expect(error.place?.file).toBe("/nowhere/at/all");
    expect(error.remedy).toBe("Check the path.");
    const full = fromNative(Object.assign(new Error("ENOSPC: no space"), { code: "ENOSPC", syscall: "write" }));
    expect(full.code).toBe("ZA_DISK_FULL");
  });

  it("maps aborts, and everything else to ZA_INTERNAL with its cause", () => {
    const controller = new AbortController();
    controller.abort();
    expect(fromNative(controller.signal.reason)).toBeInstanceOf(AbortedError);
    expect(() => throwIfAborted(controller.signal)).toThrow(AbortedError);
    expect(() => throwIfAborted(undefined)).not.toThrow();
    const cause = new TypeError("boom");
    expect(fromNative(cause).code).toBe("ZA_INTERNAL");
    expect(fromNative(cause).cause).toBe(cause);
    expect(fromNative("text").message).toBe("text");
  });
});

describe("the table of codes", () => {
  it("holds every code of the Rust core and of the TypeScript sources, and a class takes each", () => {
    const used = new Set<string>();
    for (const folder of ["crates", "bindings/node/src", "bindings/wasm/src", "ts"]) {
      for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
        if (!/\.(rs|ts)$/.test(file) || file.endsWith(".test.ts") || file.includes("node_modules")) continue;
        for (const [, code] of readFileSync(join(folder, file), "utf8").matchAll(/"(ZA_[A-Z_]+)"/g)) used.add(code!);
      }
    }
    const prefixes = [...used].filter((code) => Object.keys(errorCodes).some((known) => known.startsWith(`${code}_`)));
    const missing = [...used].filter((code) => !(code in errorCodes) && !prefixes.includes(code));
    expect(used.size).toBeGreaterThan(30);
    expect(missing).toEqual([]);
    const general = Object.keys(errorCodes).filter((code) => errorFromCode(code, "x").constructor === ZephyrError);
    const modules = ["ZA_NATIVE_LOAD", "ZA_WASM_LOAD", "ZA_WASM_STOPPED", "ZA_WASM_UNSUPPORTED"];
    expect(general.sort()).toEqual(["ZA_INTERNAL", ...modules]);
  });
});
