import { dpoConfig, sftConfig } from "./config";
import { dpoFields, sftFields } from "./config-fields";

/**
 * Every way to train, by the name of its command: its fields (a documented object of config-fields.ts) and its rules.
 * One entry more is a trainer more in the flags, their help and the tables of docs/options.md.
 */
export const methods = {
  sft: { fields: sftFields, config: sftConfig },
  dpo: { fields: dpoFields, config: dpoConfig },
} as const;

/** What is trained how. */
export type Method = keyof typeof methods;
