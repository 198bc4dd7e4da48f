export interface Shape {
  hidden: number;
  inner: number;
  layers: number;
  heads: number;
  kvHeads: number;
  vocabulary: number;
  context: number;
}

export const shapes: Record<"1.1b" | "tiny", Shape>;

/** Writes the file; a half-written one is never left under its name. */
export function writeRandomGguf(file: string, kindName: string, shape: Shape): void;

/** The header alone, and the length of the whole file. */
export function randomGgufHeader(kindName: string, shape: Shape): { header: Uint8Array; bytes: number };
