/** What exporting a model to GGUF takes and gives. */
import { basename, extname } from "node:path";

/** What the matrices of a GGUF file are rounded to, under ggml's names. Norms stay F32. */
export const ggufTypes = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K"] as const;
export type GgufType = (typeof ggufTypes)[number];

/** How a GGUF file is written. */
export interface GgufOptions {
  /**
   * Type of the matrices, bits a weight in brackets: F32, F16, BF16, Q8_0 (8.5), Q4_0 (4.5), Q4_K (about 4.8; llama.cpp's
   * mixture Q4_K_M). The output keeps more bits under Q4_0 and Q4_K, as llama.cpp has it.
   * @default "F16"
   */
  type?: GgufType;
  /** `general.name` in the file. @default the last part of the model's path or id */
  name?: string;
}

/** A GGUF file that was written. */
export interface GgufExport {
  file: string;
  bytes: number;
  type: GgufType;
  /** Types of the tensors with their numbers, for example `{ F32: 61, Q4_0: 210, Q8_0: 1 }`. */
  tensors: Readonly<Record<string, number>>;
  /** What the file says less exactly than the model, in sentences; often none. */
  notes: readonly string[];
}

/** `org/name` → `name`, `models/name.gguf` → `name`. */
export function modelName(source: string): string {
  const name = basename(source);
  return [".gguf", ".safetensors"].includes(extname(name)) ? name.slice(0, -extname(name).length) : name;
}
