export type { RequestLog } from "./app";
export { type ModelServer, type ServeOptions, serve } from "./serve";
