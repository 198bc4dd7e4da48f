/** Data from models: conversations as UltraChat has them, ratings as UltraFeedback has them, pairs, and the offline teacher. */
export {
  type Binarisation,
  type BinarisedPair,
  type BinariseReport,
  binarise,
  type PairDropReason,
  type PreferenceRow,
  pairDropReasons,
} from "./binarise/binarise";
export { type BinariseOptions, type BinarisePreset, binarisePresets } from "./binarise/options";
export { type Overlap, OverlapFilter, overlapTexts } from "./binarise/overlap";
export { pairFiles, writePairs } from "./binarise/write";
export type { FeedbackAnnotation, FeedbackCompletion, FeedbackRow } from "./feedback-row";
export { type DropReason, dropReasons } from "./generate/filters";
export {
  type ConversationRow,
  type GeneratedConversation,
  type Generation,
  generateConversations,
} from "./generate/generate";
export type { GenerateOptions } from "./generate/options";
export { passagesOf } from "./generate/passages";
export type { GenerationReport } from "./generate/report";
export type { Sector, SectorSettings } from "./generate/sectors";
export { conversationFiles, type WriteConversationsOptions, writeConversations } from "./generate/write";
export { offlineModel, offlineQuestions } from "./offline";
export type { RateOptions } from "./rate/options";
export { type FeedbackPrompt, feedbackPrompts, type TurnChoice } from "./rate/prompts";
export { type RatedPrompt, type Rating, rateResponses } from "./rate/rate";
export type { ModelScores, RateFailure, RateReport } from "./rate/report";
export { feedbackFiles, type WriteFeedbackOptions, writeFeedback } from "./rate/write";
