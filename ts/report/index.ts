export {
  type DemoExample,
  type DemoModel,
  type DemoReportInput,
  type DemoWinRate,
  renderDemoReport,
  type ScoreSummary,
} from "./demo-report";
export { type RunReportData, type RunReportInput, type RunReportSample, renderRunReport } from "./run-report";
export type { MetricsHistory } from "./training-charts";
