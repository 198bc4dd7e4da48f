/** Against a real Python: what AlpacaEval leaves to CPython must be CPython's. */
import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { pythonWith } from "../../../test/shared";
import { type PythonValue, pythonLiteral } from "./python-literal";
import { isSwitched, pythonRandom } from "./python-random";

const python = pythonWith("random");

/** Runs a program that reads JSON from standard input and prints JSON. */
function run<T>(program: string, input: unknown): T {
  const { status, stdout, stderr } = spawnSync(python!, ["-W", "ignore", "-c", program], {
    input: JSON.stringify(input),
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

it("the coin of known instructions", () => {
  // Printed by CPython 3.11.
  expect(pythonRandom("zephyr")()).toBe(0.6324735977751765);
  expect(pythonRandom("")()).toBe(0.9602256525641875);
  expect(["Name a river in Spain.", "Write a haiku about rust."].map((text) => isSwitched(text))).toEqual([
    false,
    true,
  ]);
});

describe.runIf(python)("as CPython", () => {
  const texts = fc.sample(fc.string({ unit: "grapheme", maxLength: 300 }), { numRuns: 300, seed: 3 });

  it("random() of text seeds, many numbers deep", () => {
    const expected = run<number[][]>(
      "import sys, json, random\nr = [random.Random(s) for s in json.load(sys.stdin)]\nprint(json.dumps([[x.random() for _ in range(700)][::233] for x in r]))",
      texts.slice(0, 40),
    );
    for (const [i, numbers] of expected.entries()) {
      const random = pythonRandom(texts[i]!);
      const mine = Array.from({ length: 700 }, random);
      expect(numbers).toEqual([0, 233, 466, 699].map((at) => mine[at]));
    }
  });

  it("the order coin", () => {
    const expected = run<boolean[]>(
      "import sys, json, random\nprint(json.dumps([random.Random('is_switched_outputs' + s + '0').choices([False, True], k=1)[0] for s in json.load(sys.stdin)]))",
      texts,
    );
    expect(texts.map((text) => isSwitched(text))).toEqual(expected);
    expect(new Set(expected).size).toBe(2);
  });

  it("literals that repr writes are read", () => {
    const values = fc.sample(fc.jsonValue({ maxDepth: 4 }), { numRuns: 300, seed: 4 });
    const written = run<string[]>(
      "import sys, json\nprint(json.dumps([repr(v) for v in json.load(sys.stdin)]))",
      values,
    );
    for (const [i, text] of written.entries()) expect(plain(pythonLiteral(text))).toEqual(noMinusZero(values[i]));
  });

  it("what Python refuses is refused, what it takes is taken", () => {
    const pieces = fc.constantFrom(
      ..."[ ] ( ) { } , : ' \" ''' \\ \\n \n # - + 0 1 2 12 1.5 1e3 .5 0x1F 1_0 True None a model rank 'model' 'rank' \"\"\" r' b' u' f' [] () {} [1,2] {'a':1} (1,) 'a'".split(
        " ",
      ),
      " ",
      "\t",
    );
    const sources = fc.sample(
      fc.array(pieces, { maxLength: 9 }).map((parts) => parts.join("")),
      { numRuns: 20_000, seed: 5 },
    );
    const program = `
import sys, json, ast
def plain(v):
    if isinstance(v, dict): return {"dict": [[plain(k), plain(x)] for k, x in v.items()]}
    if isinstance(v, (list, tuple)): return [plain(x) for x in v]
    if isinstance(v, (set, bytes, complex)) or v is ... or isinstance(v, float) and abs(v) > 1e300: return "other"
    if isinstance(v, int) and abs(v) > 2**53: return "other"
    return v
def read(s):
    try: return {"value": plain(ast.literal_eval(s))}
    except BaseException: return None
print(json.dumps([read(s) for s in json.load(sys.stdin)]))`;
    const expected = run<({ value: unknown } | null)[]>(program, sources);
    const wrong: unknown[] = [];
    let taken = 0;
    for (const [i, source] of sources.entries()) {
      const right = JSON.stringify(expected[i] ?? {});
      // An indent alone on the last line is an error of some versions only.
      if (right.includes('"other"') || /\n[ \t]+$/.test(source)) continue;
      // As JSON: Python's integer -0 is 0.
      const mine = JSON.stringify(attempt(source));
      if (mine !== right) wrong.push({ source, mine, right });
      if (expected[i]) taken++;
    }
    expect(wrong).toEqual([]);
    expect(taken).toBeGreaterThan(200);
  });
});

function attempt(source: string): { value?: unknown } {
  try {
    return { value: listed(pythonLiteral(source)) };
  } catch (error) {
    expect(error).toBeInstanceOf(SyntaxError);
    return {};
  }
}

/** Dicts in the form that the program prints. */
function listed(value: PythonValue): unknown {
  if (value instanceof Map) return { dict: [...value].map(([key, each]) => [listed(key), listed(each)]) };
  return Array.isArray(value) ? value.map(listed) : value;
}

/** Dicts as objects. */
function plain(value: PythonValue): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, each]) => [key, plain(each)]));
  if (Array.isArray(value)) return value.map(plain);
  return typeof value === "bigint" ? Number(value) : value;
}

function noMinusZero(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
