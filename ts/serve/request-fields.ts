/** Reading requests field by field: what is not read, and what cannot be honoured, is refused by name. */
import { typeName } from "../data/messages";
import { badField } from "./api-error";

/** A JSON object of a request. A field that is null counts as left out. */
export class RequestFields {
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #read = new Set<string>();

  /** @throws ApiError when the value is no object */
  constructor(value: unknown, path = "") {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw badField(path, `${path || "The body"} must be an object, found ${typeName(value)}.`);
    }
    this.#object = value as Readonly<Record<string, unknown>>;
    this.#path = path;
  }

  /** The path of a field for messages, for example `messages[0].content`. */
  path(name: string): string {
    return this.#path === "" ? name : `${this.#path}.${name}`;
  }

  /** A field as it is. */
  take(name: string): unknown {
    this.#read.add(name);
    return Object.hasOwn(this.#object, name) ? (this.#object[name] ?? undefined) : undefined;
  }

  /** Whether a field is there, null included. */
  has(name: string): boolean {
    return Object.hasOwn(this.#object, name);
  }

  number(name: string, low: number, high: number): number | undefined {
    const value = this.take(name);
    if (value === undefined || (typeof value === "number" && value >= low && value <= high)) return value;
    throw this.#wrong(name, value, `a number from ${low} to ${high}`);
  }

  whole(name: string, low: number, high: number): number | undefined {
    const value = this.take(name);
    if (value === undefined) return value;
    if (typeof value === "number" && Number.isInteger(value) && value >= low && value <= high) return value;
    throw this.#wrong(name, value, `a whole number from ${low} to ${high}`);
  }

  boolean(name: string): boolean | undefined {
    const value = this.take(name);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.#wrong(name, value, "true or false");
  }

  text(name: string): string | undefined {
    const value = this.take(name);
    if (value === undefined || typeof value === "string") return value;
    throw this.#wrong(name, value, "a text");
  }

  object(name: string): RequestFields | undefined {
    const value = this.take(name);
    return value === undefined ? undefined : new RequestFields(value, this.path(name));
  }

  list(name: string): readonly unknown[] | undefined {
    const value = this.take(name);
    if (value === undefined || Array.isArray(value)) return value;
    throw this.#wrong(name, value, "a list");
  }

  /** Takes fields that change nothing of the answer. */
  ignore(...names: readonly string[]): void {
    for (const name of names) this.#read.add(name);
  }

  /** Refuses a field unless its value asks for nothing. */
  unsupported(name: string, asksNothing: (value: unknown) => boolean, remedy = "Leave it out."): void {
    const value = this.take(name);
    if (value === undefined || asksNothing(value)) return;
    throw badField(
      this.path(name),
      `${this.path(name)} is not supported by this server. ${remedy}`,
      "unsupported_parameter",
    );
  }

  /** Refuses what nobody has read. */
  close(): void {
    for (const [name, value] of Object.entries(this.#object)) {
      if (value === null || this.#read.has(name)) continue;
      throw badField(
        this.path(name),
        `${this.path(name)} is not known to this server. Leave it out.`,
        "unknown_parameter",
      );
    }
  }

  #wrong(name: string, value: unknown, wanted: string) {
    const found = typeof value === "number" ? String(value) : typeName(value);
    return badField(this.path(name), `${this.path(name)} must be ${wanted}, found ${found}.`);
  }
}
