/** The known key that is closest to a mistyped one, at most a third of its letters away; snake_case counts as camelCase. */
export function nearestKey(typed: string, keys: readonly string[]): string | undefined {
  const wanted = typed.replaceAll(/[-_]/g, "").toLowerCase();
  let best: string | undefined;
  let least = Math.floor(Math.max(wanted.length, 3) / 3) + 1;
  for (const key of keys) {
    const distance = editDistance(wanted, key.toLowerCase());
    if (distance < least) {
      least = distance;
      best = key;
    }
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
