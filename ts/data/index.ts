export type { HubOptions, HubProgress } from "../hub/settings";
export {
  type ConvertedDataset,
  type ConvertedOptions,
  type DataReport,
  type DatasetInput,
  pairDataset,
  sftDataset,
  unpairedDataset,
} from "./converted";
export { type DatasetOptions, dataset } from "./dataset";
export type { Dataset, Row } from "./dataset-type";
export {
  type ConvertCounts,
  type ConvertOptions,
  describeFormat,
  type FormatName,
  type Message,
  type PairRow,
  type Purpose,
  type Role,
  type SftRow,
  toPair,
  toSft,
  toUnpaired,
  type UnpairedRow,
} from "./formats";
export { fromArray } from "./in-memory";
export { type JsonArrayOptions, jsonArray } from "./json-array";
export { type JsonlOptions, jsonl } from "./jsonl";
export { type MixOptions, type MixPart, mix } from "./mix";
export { parquet } from "./parquet/index";
export { type Permutation, shuffled } from "./shuffle";
export { type ShuffleOptions, shuffle } from "./shuffled-rows";
export type { HoldOut } from "./subset";
