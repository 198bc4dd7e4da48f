export { type DemoReportInput, type DemoWinRate, renderDemoReport } from "./demo-report";
export type { ChangedQuestion, Difference, RunComparison } from "./evaluation/comparison";
export { type EvaluationReportOptions, renderEvaluationReport } from "./evaluation/evaluation-report";
export {
  type EvaluationSummary,
  evaluationSummary,
  type RunSummary,
  renderEvaluationMarkdown,
} from "./evaluation/evaluation-text";
export { type RunReportData, type RunReportInput, type RunReportSample, renderRunReport } from "./run-report";
export type { JudgedConversation, JudgedModel, ScoreSummary } from "./scores";
export type { MetricsHistory } from "./training-charts";
export type { Overview } from "./view/overview-html";
export { type DatasetView, type ViewOptions, viewDataset } from "./view/view-dataset";
