/** One step of a pattern: a character that fits, a run of such, some folders with their slashes; or the next step may be left out. */
type Step =
  | { one: (character: string) => boolean }
  | { run: (character: string) => boolean }
  | { folders: true }
  | { optional: true };

const anything = () => true;
const notSlash = (character: string) => character !== "/";

/**
 * Patterns of paths, as fsspec and git read them: `*` and `?` stay in a folder, `**` crosses folders, `[…]` is one of.
 * Matching takes time linear in the path for any pattern: patterns come from other people's cards.
 */
export function globMatcher(pattern: string): (path: string) => boolean {
  const steps = stepsOf(pattern);
  return (path) => {
    // All steps that may come next; a run may end at any time.
    let states = withSkips(new Set([0]), steps);
    for (const character of path) {
      const next = new Set<number>();
      for (const at of states) {
        const step = steps[at];
        if (step === undefined) continue;
        if ("one" in step) {
          if (step.one(character)) next.add(at + 1);
        } else if ("run" in step) {
          if (step.run(character)) next.add(at);
        } else if ("folders" in step) {
          next.add(at);
          if (character === "/") next.add(at + 1);
        }
      }
      states = withSkips(next, steps);
    }
    return states.has(steps.length);
  };
}

/** The states and those that are reached from them without a character. */
function withSkips(states: Set<number>, steps: readonly Step[]): Set<number> {
  for (const at of states) {
    const step = steps[at];
    if (step && ("run" in step || "optional" in step)) states.add(at + 1);
    if (step && "optional" in step) states.add(at + 2);
  }
  return states;
}

function stepsOf(pattern: string): Step[] {
  const steps: Step[] = [];
  for (let at = 0; at < pattern.length; ) {
    const rest = pattern.slice(at);
    const set = /^\[(!?)(\]?[^\]]*)\]/.exec(rest);
    if (rest.startsWith("**/")) {
      steps.push({ optional: true }, { folders: true });
      at += 3;
    } else if (rest.startsWith("**")) {
      steps.push({ run: anything });
      at += 2;
    } else if (rest[0] === "*") {
      steps.push({ run: notSlash });
      at++;
    } else if (rest[0] === "?") {
      steps.push({ one: notSlash });
      at++;
    } else if (set) {
      const [whole, not, members] = set;
      const isMember = memberOf(members!);
      steps.push({ one: (character) => character !== "/" && isMember(character) !== (not === "!") });
      at += whole.length;
    } else {
      const literal = String.fromCodePoint(pattern.codePointAt(at)!);
      steps.push({ one: (character) => character === literal });
      at += literal.length;
    }
  }
  return steps;
}

/** Characters and ranges, as between the brackets of `[a-z_.]`. */
function memberOf(members: string): (character: string) => boolean {
  const characters = [...members];
  return (character) => {
    for (let at = 0; at < characters.length; at++) {
      const from = characters[at]!;
      const to = characters[at + 2];
      if (characters[at + 1] === "-" && to !== undefined) {
        if (from <= character && character <= to) return true;
        at += 2;
      } else if (from === character) return true;
    }
    return false;
  };
}
