import { dpoConfig, sftConfig } from "./config";
import { cpoFields, dpoFields, ktoFields, orpoFields, sftFields, simpoFields } from "./config-fields";
import { cpoConfig, ktoConfig, orpoConfig, simpoConfig } from "./preference-config";

/**
 * Every way to train, by the name of its command: how it is called, what its rows are, its fields (a documented object of
 * config-fields.ts) and its rules. One entry more is a trainer more in the flags, their help and the tables of
 * docs/options.md.
 */
export const methods = {
  sft: { title: "dSFT", lead: "Supervised fine-tuning", rows: "rows", fields: sftFields, config: sftConfig },
  dpo: { title: "dDPO", lead: "Direct preference optimisation", rows: "pairs", fields: dpoFields, config: dpoConfig },
  kto: { title: "KTO", lead: "Kahneman-Tversky optimisation", rows: "answers", fields: ktoFields, config: ktoConfig },
  orpo: {
    title: "ORPO",
    lead: "Odds ratio preference optimisation",
    rows: "pairs",
    fields: orpoFields,
    config: orpoConfig,
  },
  cpo: {
    title: "CPO",
    lead: "Contrastive preference optimisation",
    rows: "pairs",
    fields: cpoFields,
    config: cpoConfig,
  },
  simpo: {
    title: "SimPO",
    lead: "Simple preference optimisation",
    rows: "pairs",
    fields: simpoFields,
    config: simpoConfig,
  },
} as const;

/** What is trained how. */
export type Method = keyof typeof methods;
