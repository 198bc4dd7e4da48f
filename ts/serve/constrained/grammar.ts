/**
 * Grammars over characters, read one character at a time: an automaton whose states are made when they are reached.
 *
 * A state is a set of ways to go on; each way is a list of what must still come. Rules may name themselves through
 * {@link later}, so that a grammar can nest without an end.
 */

/** What a text must be made of. */
export type Rule =
  | { readonly kind: "character"; readonly test: (codePoint: number) => boolean }
  | { readonly kind: "text"; readonly codePoints: readonly number[] }
  | { readonly kind: "sequence"; readonly rules: readonly Rule[] }
  | { readonly kind: "choice"; readonly rules: readonly Rule[] }
  | { readonly kind: "repeat"; readonly rule: Rule; readonly least: number; readonly most: number }
  | {
      readonly kind: "series";
      readonly items: readonly Item[];
      readonly joint: Rule;
      /** The first item that may still come, and whether one came before it. */
      readonly from: number;
      readonly begun: boolean;
    }
  | { readonly kind: "later"; readonly rule: () => Rule };

/** Part of a series. */
export interface Item {
  readonly rule: Rule;
  /** Whether it may not be left out. */
  readonly needed: boolean;
}

/** One character that passes a test. */
export function character(test: (codePoint: number) => boolean): Rule {
  return { kind: "character", test };
}

/** One of these characters. */
export function oneOf(characters: string): Rule {
  const known = new Set(Array.from(characters, (each) => each.codePointAt(0)));
  return character((codePoint) => known.has(codePoint));
}

/** This text. */
export function text(value: string): Rule {
  return { kind: "text", codePoints: Array.from(value, (each) => each.codePointAt(0) as number) };
}

export function sequence(...rules: readonly Rule[]): Rule {
  return { kind: "sequence", rules };
}

export function choice(...rules: readonly Rule[]): Rule {
  return { kind: "choice", rules };
}

/** `least` to `most` times. */
export function repeat(rule: Rule, least: number, most = Number.POSITIVE_INFINITY): Rule {
  return { kind: "repeat", rule, least, most };
}

export function optional(rule: Rule): Rule {
  return repeat(rule, 0, 1);
}

/** Items in their order, with `joint` between those that come. */
export function series(items: readonly Item[], joint: Rule): Rule {
  return { kind: "series", items, joint, from: 0, begun: false };
}

/** A rule that is made when it is reached, once. */
export function later(rule: () => Rule): Rule {
  let made: Rule | undefined;
  return {
    kind: "later",
    rule: () => {
      made ??= rule();
      return made;
    },
  };
}

/** What must still come, the next first. */
interface Rest {
  readonly rule: Rule;
  readonly next: Rest | undefined;
  /** Bytes of the shortest text. */
  readonly least: number;
}

function rest(rule: Rule, next: Rest | undefined): Rest {
  return { rule, next, least: leastBytes(rule) + (next?.least ?? 0) };
}

/** A way to go on: a character, and what must come behind it. */
interface Way {
  readonly test: (codePoint: number) => boolean;
  readonly behind: Rest | undefined;
}

/** A state of reading. */
export class GrammarState {
  readonly #ways: readonly Way[];
  readonly #known = new Map<number, GrammarState | undefined>();
  /** Whether the text may end here. */
  readonly complete: boolean;
  /** Bytes of the shortest text with which it can end from here. */
  readonly least: number;

  constructor(rests: readonly (Rest | undefined)[]) {
    this.least = rests.reduce((least, each) => Math.min(least, each?.least ?? 0), Number.POSITIVE_INFINITY);
    const ways: Way[] = [];
    let complete = false;
    for (const rest of rests) complete = unfold(rest, ways) || complete;
    this.#ways = ways;
    this.complete = complete;
  }

  /** Whether nothing may follow. */
  get ended(): boolean {
    return this.#ways.length === 0;
  }

  /** Whether a character may come next. */
  begins(codePoint: number): boolean {
    return this.#ways.some(({ test }) => test(codePoint));
  }

  /** The state behind one more character; undefined when it may not come here. */
  after(codePoint: number): GrammarState | undefined {
    if (this.#known.has(codePoint)) return this.#known.get(codePoint);
    const rests = this.#ways.filter(({ test }) => test(codePoint)).map(({ behind }) => behind);
    const state = rests.length === 0 ? undefined : new GrammarState(rests);
    this.#known.set(codePoint, state);
    return state;
  }

  /** The state behind more text; undefined when it does not fit. */
  afterText(value: string): GrammarState | undefined {
    let state: GrammarState | undefined = this;
    for (const each of value) {
      state = state.after(each.codePointAt(0) as number);
      if (!state) return undefined;
    }
    return state;
  }
}

/** A whole grammar. */
export class Grammar {
  constructor(readonly rule: Rule) {}

  /** The state before any text. */
  start(): GrammarState {
    return new GrammarState([rest(this.rule, undefined)]);
  }

  /** Whether a whole text fits. */
  accepts(value: string): boolean {
    return this.start().afterText(value)?.complete === true;
  }
}

/** Collects the characters that may come next. @returns whether nothing need come */
function unfold(coming: Rest | undefined, ways: Way[]): boolean {
  if (!coming) return true;
  const { rule, next } = coming;
  switch (rule.kind) {
    case "character":
      ways.push({ test: rule.test, behind: next });
      return false;
    case "text": {
      const [first, ...others] = rule.codePoints;
      if (first === undefined) return unfold(next, ways);
      const behind = others.length === 0 ? next : rest({ kind: "text", codePoints: others }, next);
      ways.push({ test: (codePoint) => codePoint === first, behind });
      return false;
    }
    case "sequence":
      return unfold(
        rule.rules.reduceRight<Rest | undefined>((behind, each) => rest(each, behind), next),
        ways,
      );
    case "choice": {
      let complete = false;
      for (const each of rule.rules) complete = unfold(rest(each, next), ways) || complete;
      return complete;
    }
    case "repeat": {
      let complete = false;
      if (rule.most > 0) {
        const endless = rule.least === 0 && rule.most === Number.POSITIVE_INFINITY;
        const again = endless ? rule : repeat(rule.rule, Math.max(rule.least - 1, 0), rule.most - 1);
        unfold(rest(rule.rule, rest(again, next)), ways);
      }
      if (rule.least === 0) complete = unfold(next, ways) || complete;
      return complete;
    }
    case "series": {
      for (let at = rule.from; at < rule.items.length; at++) {
        const item = rule.items[at] as Item;
        const behind = rest(item.rule, rest({ ...rule, from: at + 1, begun: true }, next));
        unfold(rule.begun ? rest(rule.joint, behind) : behind, ways);
        if (item.needed) return false;
      }
      return unfold(next, ways);
    }
    case "later":
      return unfold(rest(rule.rule(), next), ways);
  }
}

const known = new WeakMap<Rule, number>();

/** Bytes of a rule's shortest text; infinite when it has none that ends. */
export function leastBytes(rule: Rule): number {
  const found = known.get(rule);
  if (found !== undefined) return found;
  // What is left of a rule while reading has parts that are known, and is not met again.
  if (partsOf(rule).every((part) => known.has(part))) return measured(rule, (part) => known.get(part) as number);
  // Rules may contain themselves: all begin without an end, and get shorter until none does.
  const least = new Map<Rule, number>();
  collect(rule, least);
  const of = (part: Rule) => known.get(part) ?? (least.get(part) as number);
  for (let shorter = true; shorter; ) {
    shorter = false;
    for (const [each, before] of least) {
      const now = measured(each, of);
      if (now < before) least.set(each, now);
      shorter ||= now < before;
    }
  }
  for (const [each, bytes] of least) known.set(each, bytes);
  return least.get(rule) as number;
}

/** All that a rule is made of and is not known yet, parts before what they are part of. */
function collect(rule: Rule, least: Map<Rule, number>, open = new Set<Rule>()): void {
  if (known.has(rule) || open.has(rule)) return;
  open.add(rule);
  for (const part of partsOf(rule)) collect(part, least, open);
  least.set(rule, Number.POSITIVE_INFINITY);
}

function partsOf(rule: Rule): readonly Rule[] {
  switch (rule.kind) {
    case "character":
    case "text":
      return [];
    case "sequence":
    case "choice":
      return rule.rules;
    case "repeat":
      return [rule.rule];
    case "series":
      return [rule.joint, ...rule.items.slice(rule.from).map((item) => item.rule)];
    case "later":
      return [rule.rule()];
  }
}

/** Bytes of a character in UTF-8. */
function bytesOf(codePoint: number): number {
  if (codePoint < 0x80) return 1;
  if (codePoint < 0x800) return 2;
  return codePoint < 0x10000 ? 3 : 4;
}

function measured(rule: Rule, of: (part: Rule) => number): number {
  switch (rule.kind) {
    case "character":
      return 1;
    case "text":
      return rule.codePoints.reduce((bytes, codePoint) => bytes + bytesOf(codePoint), 0);
    case "sequence":
      return rule.rules.reduce((sum, each) => sum + of(each), 0);
    case "choice":
      return rule.rules.reduce((least, each) => Math.min(least, of(each)), Number.POSITIVE_INFINITY);
    case "repeat":
      return rule.least === 0 ? 0 : rule.least * of(rule.rule);
    case "series": {
      const needed = rule.items.slice(rule.from).filter((item) => item.needed);
      const joints = Math.max(rule.begun ? needed.length : needed.length - 1, 0);
      return needed.reduce((sum, item) => sum + of(item.rule), joints === 0 ? 0 : joints * of(rule.joint));
    }
    case "later":
      return of(rule.rule());
  }
}
