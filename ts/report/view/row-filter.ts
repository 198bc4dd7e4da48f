import type { BrowsedRow } from "./browsed-data";
import { searchedText } from "./browsed-data";
import type { Groups } from "./duplicates";
import { countedRoles, type RowTable } from "./row-table";

/** Which rows are wanted at all. */
export const kinds = ["all", "usable", "bad", "equal", "exact", "near"] as const;

/** In which order. */
export const orders = ["file", "longest", "shortest", "margin-high", "margin-low"] as const;

/** Roles whose messages are counted; `any` counts all. */
export const roleChoices = ["any", ...countedRoles] as const;

/** Which rows are listed, and how. */
export interface RowFilter {
  /** Text that must occur, upper and lower case alike; empty for any. */
  text: string;
  kind: (typeof kinds)[number];
  /** Of bad rows: the error's code; empty for any. */
  code: string;
  role: (typeof roleChoices)[number];
  /** Least and most messages of the role. */
  messages: Range;
  /** Least and most characters. */
  length: Range;
  /** Least and most margin of the scores; rows without scores are left out when one is given. */
  margin: Range;
  order: (typeof orders)[number];
}

/** A limit is null when there is none. */
export type Range = readonly [least: number | null, most: number | null];

/** Duplicates as far as they are known. */
export interface KnownGroups {
  exact: Groups | undefined;
  near: Groups | undefined;
}

/** Names of the filter in addresses: `#q=…&kind=…`. */
export const filterKeys = [
  "q",
  "kind",
  "code",
  "role",
  "messages-min",
  "messages-max",
  "length-min",
  "length-max",
  "margin-min",
  "margin-max",
  "order",
] as const;

/** Reads a filter out of an address. What is not understood is as if it were not there. */
export function filterOf(query: URLSearchParams): RowFilter {
  const limit = (name: string) => {
    const text = query.get(name)?.trim() ?? "";
    const value = Number(text);
    return text !== "" && Number.isFinite(value) ? value : null;
  };
  const range = (name: string): Range => [limit(`${name}-min`), limit(`${name}-max`)];
  const choice = <T extends string>(name: string, choices: readonly [T, ...T[]]): T =>
    choices.find((each) => each === query.get(name)) ?? choices[0];
  return {
    text: query.get("q") ?? "",
    kind: choice("kind", kinds),
    code: query.get("code") ?? "",
    role: choice("role", roleChoices),
    messages: range("messages"),
    length: range("length"),
    margin: range("margin"),
    order: choice("order", orders),
  };
}

/** The part of an address that is the filter, without what is not set. */
export function filterQuery(query: URLSearchParams): URLSearchParams {
  const kept = new URLSearchParams();
  for (const key of filterKeys) {
    const value = query.get(key);
    if (value) kept.set(key, value);
  }
  return kept;
}

/** Whether every row is listed. */
export function listsAll({ text, kind, code, messages, length, margin }: RowFilter): boolean {
  const open = (range: Range) => range[0] === null && range[1] === null;
  return text === "" && kind === "all" && code === "" && open(messages) && open(length) && open(margin);
}

/** Whether a row passes all but the search for text. Asked of rows only that the table has read. */
export function passes(filter: RowFilter, row: number, table: RowTable, { exact, near }: KnownGroups): boolean {
  const bad = table.code[row]! > 0;
  const inside = ([least, most]: Range, value: number) =>
    (least === null || value >= least) && (most === null || value <= most);
  const { system, user, assistant } = table.counts;
  const messages =
    filter.role === "any" ? system[row]! + user[row]! + assistant[row]! : table.counts[filter.role][row]!;
  const ofKind = {
    all: true,
    usable: !bad,
    bad,
    equal: table.equal[row] === 1,
    exact: exact?.has(row) ?? false,
    near: near?.has(row) ?? false,
  }[filter.kind];
  return (
    ofKind &&
    (filter.code === "" || (bad && table.codes[table.code[row]! - 1] === filter.code)) &&
    inside(filter.messages, messages) &&
    inside(filter.length, table.length[row]!) &&
    inside(filter.margin, table.margin[row]!)
  );
}

/** A pattern that finds a text literally, upper and lower case alike; undefined for no text. */
export function patternOf(text: string, flags = "iu"): RegExp | undefined {
  return text === "" ? undefined : new RegExp(text.replace(/[\\^$.*+?()[\]{}|]/gu, "\\$&"), flags);
}

/** Whether a row holds the text that is searched. */
export function holds(pattern: RegExp | undefined, row: BrowsedRow): boolean {
  return pattern === undefined || pattern.test(searchedText(row));
}
