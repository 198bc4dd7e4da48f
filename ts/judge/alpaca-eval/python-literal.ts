/** Python's `ast.literal_eval`, for judges that answer in Python and for files that hold Python's `repr`. */

/** A value of a Python literal: lists, tuples and sets are arrays, a dict is a Map, None is null, bytes are a Buffer. */
export type PythonValue = string | number | bigint | boolean | null | Buffer | PythonValue[] | PythonDict;

/** A dict in the order of its keys; the last of equal keys wins. */
export type PythonDict = Map<PythonValue, PythonValue>;

/**
 * Evaluates a literal: strings of every prefix that is a literal, numbers but complex ones, True, False, None, lists,
 * tuples, sets and dicts.
 *
 * @throws SyntaxError for anything else.
 */
export function pythonLiteral(source: string): PythonValue {
  return new Parser(source.replace(/^[ \t]+/, "")).whole();
}

const number =
  /0[xX][\da-fA-F](?:_?[\da-fA-F])*|0[oO][0-7](?:_?[0-7])*|0[bB][01](?:_?[01])*|(?:\d(?:_?\d)*)?\.?(?:\d(?:_?\d)*)?(?:[eE][+-]?\d(?:_?\d)*)?/y;
const stringStart = /([A-Za-z]{0,2})('''|"""|'|")/y;
const word = /[A-Za-z_]\w*/y;

class Parser {
  #at = 0;
  /** Open brackets: inside them line ends are nothing. */
  #depth = 0;
  readonly #source: string;

  constructor(source: string) {
    this.#source = source.replace(/\r\n?/g, "\n");
  }

  whole(): PythonValue {
    this.#skipLines();
    // Blank lines may stand around the literal; an indent in front of it, or on a last line of its own, may not.
    const indented = (this.#at > 0 && /[ \t]/.test(this.#source[this.#at] ?? "")) || /\n[ \t]+$/.test(this.#source);
    if (indented || this.#source.includes("\0")) throw this.#unexpected();
    const first = this.#value();
    const value = this.#peek() === "," ? this.#rest(first) : first;
    this.#skipLines();
    if (this.#at < this.#source.length) throw this.#unexpected();
    return value;
  }

  /** The rest of a tuple without brackets. */
  #rest(first: PythonValue): PythonValue[] {
    const values = [first];
    while (this.#take(",")) {
      const next = this.#peek();
      if (next === "" || next === "\n" || next === "#") break;
      values.push(this.#value());
    }
    return values;
  }

  #value(): PythonValue {
    const next = this.#peek();
    if (next === "[") return this.#items("[", "]").values;
    if (next === "{") return this.#braces();
    if (next === "(") return this.#parentheses();
    if (next === "-" || next === "+") return this.#signed();
    if (this.#matches(stringStart)) return this.#strings();
    if (/[\d.]/.test(next)) return this.#number();
    const name = this.#matches(word)?.[0];
    if (name !== undefined && Object.hasOwn(constants, name)) {
      this.#at += name.length;
      return constants[name]!;
    }
    throw this.#unexpected();
  }

  #parentheses(): PythonValue {
    const { values, comma } = this.#items("(", ")");
    return values.length === 1 && !comma ? values[0]! : values;
  }

  #items(open: string, close: string): { values: PythonValue[]; comma: boolean } {
    this.#open(open);
    const values: PythonValue[] = [];
    let comma = false;
    while (this.#peek() !== close) {
      if (values.length > 0 && !comma) throw this.#unexpected();
      values.push(this.#value());
      comma = this.#take(",");
    }
    this.#close(close);
    return { values, comma };
  }

  #braces(): PythonValue {
    this.#open("{");
    if (this.#peek() === "}") {
      this.#close("}");
      return new Map();
    }
    const first = this.#value();
    const isDict = this.#peek() === ":";
    const set: PythonValue[] = [];
    const dict: PythonDict = new Map();
    for (let key = first; ; key = this.#value()) {
      if (typeof key === "object" && key !== null && !Buffer.isBuffer(key) && !Array.isArray(key))
        throw this.#unexpected();
      if (isDict) {
        if (!this.#take(":")) throw this.#unexpected();
        dict.set(key, this.#value());
      } else set.push(key);
      if (!this.#take(",") || this.#peek() === "}") break;
    }
    this.#close("}");
    return isDict ? dict : set;
  }

  /** One sign before a number; Python's own evaluator takes no second one. */
  #signed(): number | bigint {
    const minus = this.#source[this.#at++] === "-";
    const value = this.#unsigned();
    return minus ? -value : value;
  }

  #unsigned(): number | bigint {
    if (this.#peek() !== "(") return this.#number();
    this.#open("(");
    const value = this.#unsigned();
    this.#close(")");
    return value;
  }

  #number(): number | bigint {
    this.#peek();
    const text = this.#matches(number)?.[0] ?? "";
    if (text === "" || text === "." || /^[eE.]+$/.test(text)) throw this.#unexpected();
    this.#at += text.length;
    // A name right behind a number is no number (`1j`, `2px`).
    if (/[\w.]/.test(this.#source[this.#at] ?? "")) throw this.#unexpected();
    const plain = text.replaceAll("_", "");
    if (/^\d+$/.test(plain)) {
      if (/^0+[1-9]/.test(plain)) throw this.#unexpected();
      return Number.isSafeInteger(Number(plain)) ? Number(plain) : BigInt(plain);
    }
    return Number(plain);
  }

  /** Strings that stand side by side are one. */
  #strings(): string | Buffer {
    const parts = [this.#string()];
    for (this.#peek(); this.#matches(stringStart); this.#peek()) parts.push(this.#string());
    if (parts.every((part) => typeof part === "string")) return parts.join("");
    if (parts.every((part) => Buffer.isBuffer(part))) return Buffer.concat(parts);
    throw this.#unexpected();
  }

  #string(): string | Buffer {
    const [start, prefix = "", quote = ""] = this.#matches(stringStart)!;
    const kind = prefix.toLowerCase();
    if (!["", "r", "u", "b", "br", "rb"].includes(kind)) throw this.#unexpected();
    const bytes = kind.includes("b");
    this.#at += start.length;
    let text = "";
    for (;;) {
      const character = this.#source[this.#at];
      if (character === undefined || (character === "\n" && quote.length === 1)) throw this.#unexpected();
      if (this.#source.startsWith(quote, this.#at)) break;
      if (character === "\\") text += kind.includes("r") ? this.#raw() : this.#escape(bytes);
      else {
        if (bytes && character > "\x7f") throw this.#unexpected();
        text += character;
        this.#at++;
      }
    }
    this.#at += quote.length;
    return bytes ? Buffer.from(text, "latin1") : text;
  }

  #raw(): string {
    const pair = this.#source.slice(this.#at, this.#at + 2);
    this.#at += 2;
    return pair;
  }

  #escape(bytes: boolean): string {
    const rest = this.#source.slice(this.#at + 1, this.#at + 11);
    const coded =
      /^(?:x([\da-fA-F]{2})|([0-7]{1,3}))/.exec(rest) ??
      (bytes ? null : /^(?:u([\da-fA-F]{4})|U([\da-fA-F]{8}))/.exec(rest));
    if (coded) {
      this.#at += 1 + coded[0].length;
      const octal = /^[0-7]/.test(coded[0]);
      const code = Number.parseInt(coded[1] ?? coded[2]!, octal ? 8 : 16);
      if (code > 0x10ffff) throw this.#unexpected();
      return String.fromCodePoint(bytes ? code & 0xff : code);
    }
    const character = rest[0] ?? "";
    // \N{…} needs Unicode's names; \x, \u and \U without their digits are errors of Python as well.
    if (character === "" || character === "x" || (!bytes && /[NuU]/.test(character))) throw this.#unexpected();
    this.#at += 2;
    return escapes[character] ?? `\\${character}`;
  }

  #open(bracket: string): void {
    if (!this.#take(bracket)) throw this.#unexpected();
    this.#depth++;
  }

  #close(bracket: string): void {
    if (!this.#take(bracket)) throw this.#unexpected();
    this.#depth--;
  }

  #take(text: string): boolean {
    if (this.#peek() !== text) return false;
    this.#at++;
    return true;
  }

  /** The next character that is not space; inside brackets line ends and comments are space. "" at the end. */
  #peek(): string {
    const space = this.#depth > 0 ? /(?:[ \t\f\n]|\\\n|#[^\n]*)*/y : /(?:[ \t\f]|\\\n)*/y;
    space.lastIndex = this.#at;
    this.#at += space.exec(this.#source)![0].length;
    return this.#source[this.#at] ?? "";
  }

  #skipLines(): void {
    const lines = /(?:[ \t\f]*(?:#[^\n]*)?\n)*(?:[ \t\f]*(?:#[^\n]*)?$)?/y;
    lines.lastIndex = this.#at;
    this.#at += lines.exec(this.#source)![0].length;
  }

  #matches(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    return pattern.exec(this.#source);
  }

  #unexpected(): SyntaxError {
    const found = this.#source[this.#at];
    return new SyntaxError(
      `not a Python literal: ${found === undefined ? "it ends too early" : `unexpected ${JSON.stringify(found)} at character ${this.#at}`}`,
    );
  }
}

const constants: Readonly<Record<string, PythonValue>> = { True: true, False: false, None: null };

const escapes: Readonly<Record<string, string>> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};
