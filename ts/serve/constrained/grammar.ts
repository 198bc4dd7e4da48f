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
  | { readonly kind: "later"; readonly rule: () => Rule };

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

/** A rule that is made when it is reached. */
export function later(rule: () => Rule): Rule {
  return { kind: "later", rule };
}

/** What must still come, the next first. */
interface Rest {
  readonly rule: Rule;
  readonly next: Rest | undefined;
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

  constructor(rests: readonly (Rest | undefined)[]) {
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
    return new GrammarState([{ rule: this.rule, next: undefined }]);
  }

  /** Whether a whole text fits. */
  accepts(value: string): boolean {
    return this.start().afterText(value)?.complete === true;
  }
}

/** Collects the characters that may come next. @returns whether nothing need come */
function unfold(rest: Rest | undefined, ways: Way[]): boolean {
  if (!rest) return true;
  const { rule, next } = rest;
  switch (rule.kind) {
    case "character":
      ways.push({ test: rule.test, behind: next });
      return false;
    case "text": {
      const [first, ...others] = rule.codePoints;
      if (first === undefined) return unfold(next, ways);
      const behind = others.length === 0 ? next : { rule: { kind: "text", codePoints: others } as const, next };
      ways.push({ test: (codePoint) => codePoint === first, behind });
      return false;
    }
    case "sequence":
      return unfold(
        rule.rules.reduceRight<Rest | undefined>((behind, each) => ({ rule: each, next: behind }), next),
        ways,
      );
    case "choice": {
      let complete = false;
      for (const each of rule.rules) complete = unfold({ rule: each, next }, ways) || complete;
      return complete;
    }
    case "repeat": {
      let complete = false;
      if (rule.most > 0) {
        const endless = rule.least === 0 && rule.most === Number.POSITIVE_INFINITY;
        const again = endless ? rule : repeat(rule.rule, Math.max(rule.least - 1, 0), rule.most - 1);
        unfold({ rule: rule.rule, next: { rule: again, next } }, ways);
      }
      if (rule.least === 0) complete = unfold(next, ways) || complete;
      return complete;
    }
    case "later":
      return unfold({ rule: rule.rule(), next }, ways);
  }
}
